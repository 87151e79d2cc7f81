//! Many transitions on all nodes while nodes die.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carillon::client::{Options, ServerUrl};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tests::receiver::Told;
use tests::{Cluster, PATIENCE, Receiver, Setup, TestClient, eventually_within, setup};
use tokio::task::JoinSet;

const CHANNELS: usize = 1000;
const CHANNELS_PER_CLIENT: usize = 50;
const USERS: usize = 200;
const ROOMS: usize = 10;
const VISITS: usize = 3;

/// Where gateways listen now.
type Gateways = Arc<Mutex<[Option<ServerUrl>; 2]>>;

fn gateways(cluster: &Cluster) -> [Option<ServerUrl>; 2] {
    [0, 1].map(|index| Some(cluster.gateway(index).url.clone()))
}

#[tokio::test]
async fn every_transition_is_told_under_one_id_whatever_dies() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let receiver = Receiver::start().await;
    let setup = Setup::default().limit("presence_members = 200").more(&receiver.endpoint(""));
    let mut cluster = Cluster::start().publishers(2).setup(setup).await;
    let places: Gateways = Arc::new(Mutex::new(gateways(&cluster)));

    let mut users = JoinSet::new();
    for user in 0..USERS {
        users.spawn(visit(user, StdRng::seed_from_u64(rng.random()), places.clone()));
    }
    // Half of the channels on each gateway; a publisher dies in between.
    let first = occupy(&cluster, 0, 0..CHANNELS / 2).await;
    let second = occupy(&cluster, 1, CHANNELS / 2..CHANNELS).await;
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
    cluster.kill_publisher(0).await;
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..2000))).await;
    places.lock().expect("nobody panics with it")[0] = None;
    cluster.kill_gateway(0).await;
    drop(first);
    cluster.start_publisher(0).await;
    told_of(&receiver, 0..CHANNELS / 2, &["channel_occupied", "channel_vacated"]).await;
    // The same channels again, on a gateway that is new, while the other publisher dies.
    cluster.start_gateway(0).await;
    *places.lock().expect("nobody panics with it") = gateways(&cluster);
    let again = occupy(&cluster, 0, 0..CHANNELS / 2).await;
    cluster.kill_publisher(1).await;
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..1000))).await;
    cluster.start_publisher(1).await;
    drop((second, again));
    while let Some(visited) = users.join_next().await {
        visited.expect("no visit fails");
    }
    const TWICE: [&str; 4] = ["channel_occupied", "channel_vacated", "channel_occupied", "channel_vacated"];
    told_of(&receiver, 0..CHANNELS / 2, &TWICE).await;
    told_of(&receiver, CHANNELS / 2..CHANNELS, &TWICE[..2]).await;
    eventually_within(PATIENCE, "all rooms are told to be empty", async || rooms_are_over(&receiver)).await;
    check(&receiver.told(), &receiver.told_once());
    cluster.stop().await;
}

/// Clients of a gateway that occupy these channels.
async fn occupy(cluster: &Cluster, gateway: usize, channels: std::ops::Range<usize>) -> Vec<TestClient> {
    let mut clients = Vec::new();
    for first in channels.step_by(CHANNELS_PER_CLIENT) {
        let mut client = cluster.client(gateway).await;
        for channel in first..first + CHANNELS_PER_CLIENT {
            client.subscribe(&format!("room-{channel}")).await;
        }
        clients.push(client);
    }
    clients
}

/// Comes and goes a few times, each time on a gateway that happens to run; one that dies meanwhile ends the visit.
async fn visit(user: usize, mut rng: StdRng, places: Gateways) {
    let (room, id) = (format!("presence-{}", user % ROOMS), format!("user-{user}"));
    for _ in 0..VISITS {
        let index = rng.random_range(0..2);
        let place = places.lock().expect("nobody panics with it")[index].clone();
        let Some(place) = place else { continue };
        let Ok(mut client) = TestClient::try_connect(&place, &setup::app(), &Options::default()).await else {
            continue;
        };
        client.ask(&room, Some(&json!({ "user_id": id })));
        let stay = tokio::time::sleep(Duration::from_millis(rng.random_range(0..5000)));
        tokio::pin!(stay);
        loop {
            tokio::select! {
                () = &mut stay => break,
                message = client.next_if_any() => if message.is_none() { break },
            }
        }
        drop(client);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..6000))).await;
    }
}

async fn told_of(receiver: &Receiver, channels: std::ops::Range<usize>, names: &[&str]) {
    let what = format!("channels {channels:?} are told to have {names:?}");
    eventually_within(2 * PATIENCE, &what, async || {
        let told = receiver.by_channel();
        channels
            .clone()
            .all(|channel| told.get(&format!("room-{channel}")).is_some_and(|told| told.len() >= names.len()))
    })
    .await;
    let told = receiver.by_channel();
    for channel in channels {
        assert_eq!(told[&format!("room-{channel}")], names, "room-{channel}");
    }
}

fn rooms_are_over(receiver: &Receiver) -> bool {
    let told = receiver.by_channel();
    (0..ROOMS).all(|room| {
        let told = told.get(&format!("presence-{room}"));
        told.and_then(|told| told.last()).is_some_and(|name| name == "channel_vacated")
    })
}

/// Repeats are the same event under the same id; what begins ends before it begins again, in the order of first arrival.
fn check(all: &[Told], once: &[Told]) {
    let mut by_id: HashMap<&str, &Told> = HashMap::new();
    for told in all {
        assert_eq!(*by_id.entry(&told.id).or_insert(told), told, "one id, one event");
    }
    let mut sequences: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for told in once {
        let user = told.event["user_id"].as_str().unwrap_or_default().to_owned();
        sequences.entry((told.channel.clone(), user)).or_default().push(&told.name);
    }
    let users = sequences.keys().filter(|(_, user)| !user.is_empty()).count();
    assert!(users > USERS / 2, "only {users} users were ever told of");
    for ((channel, user), names) in sequences {
        let pair =
            if user.is_empty() { ["channel_occupied", "channel_vacated"] } else { ["member_added", "member_removed"] };
        assert!(names.len().is_multiple_of(2), "{channel} {user}: {names:?}");
        for (index, name) in names.iter().enumerate() {
            assert_eq!(*name, pair[index % 2], "{channel} {user}: {names:?}");
        }
    }
}
