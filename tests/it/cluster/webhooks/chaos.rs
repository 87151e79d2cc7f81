//! Many transitions on all nodes while nodes die at random.
//!
//! A visitor comes to its channels and leaves again, on whichever gateway runs, with absences that are clearly shorter or
//! clearly longer than the hold. What must have been told of it follows from when it came and went; where a gateway died
//! under it, the time of its leaving is known only roughly, and so is what was told.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Options, ServerUrl};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tests::receiver::Told;
use tests::{Cluster, PATIENCE, Receiver, Setup, TestClient, eventually_within, setup};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Visitors of plain channels, each of channels of its own: a thousand channels.
const GUESTS: usize = 250;
const CHANNELS_EACH: usize = 4;
/// Visitors of presence rooms, each a user of its own.
const USERS: usize = 200;
const ROOMS: usize = 10;
const VISITS: usize = 4;
/// Nodes that are killed.
const KILLS: usize = 8;

const HOLD: Duration = Duration::from_secs(3);
/// What may pass between an event and what the cluster knows of it, on a busy machine.
const SLACK: Duration = Duration::from_millis(1500);
/// When what a dead gateway had is taken out: not before its lease is over, which may have been renewed just before or five
/// seconds before, and 30 s later at most.
const SWEPT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(32));

/// Where gateways listen now.
type Gateways = Arc<Mutex<[Option<ServerUrl>; 2]>>;

/// Which gateway was killed, and when.
type Kills = Mutex<Vec<(usize, Instant)>>;

/// One stay, from when it stood for certain until it was over.
#[derive(Clone, Copy, Debug)]
struct Stay {
    /// `None` when the connection ended before the answer came: it may have stood.
    since: Option<Instant>,
    until: (Instant, Instant),
}

struct Visitor {
    name: String,
    channels: Vec<String>,
    is_user: bool,
    stays: Vec<Stay>,
}

#[tokio::test]
async fn every_transition_is_told_under_one_id_whatever_dies() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let receiver = Receiver::start().await;
    let setup = Setup::default().limit("presence_members = 200").more(&receiver.endpoint("concurrency = 32"));
    let mut cluster = Cluster::start().publishers(2).setup(setup).await;
    let places: Gateways = Arc::new(Mutex::new([0, 1].map(|index| Some(cluster.gateway(index).url.clone()))));
    let kills: Arc<Kills> = Arc::default();

    let guests = (0..GUESTS).map(|guest| Visitor {
        name: format!("guest-{guest}"),
        channels: (0..CHANNELS_EACH).map(|channel| format!("room-{guest}-{channel}")).collect(),
        is_user: false,
        stays: Vec::new(),
    });
    let users = (0..USERS).map(|user| Visitor {
        name: format!("user-{user}"),
        channels: vec![format!("presence-{}", user % ROOMS)],
        is_user: true,
        stays: Vec::new(),
    });
    let mut visits = JoinSet::new();
    for visitor in guests.chain(users) {
        visits.spawn(visit(visitor, StdRng::seed_from_u64(rng.random()), places.clone(), kills.clone()));
    }
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(500..3000))).await;
        let index = rng.random_range(0..2);
        let away = Duration::from_millis(rng.random_range(0..4000));
        // Gateways less often than publishers: what they had takes half a minute to be told.
        if rng.random_ratio(1, 3) {
            places.lock().expect("nobody panics with it")[index] = None;
            kills.lock().expect("nobody panics with it").push((index, Instant::now()));
            cluster.kill_gateway(index).await;
            tokio::time::sleep(away).await;
            cluster.start_gateway(index).await;
            places.lock().expect("nobody panics with it")[index] = Some(cluster.gateway(index).url.clone());
        } else {
            cluster.kill_publisher(index).await;
            tokio::time::sleep(away).await;
            cluster.start_publisher(index).await;
        }
    }
    let mut visitors = Vec::new();
    while let Some(visitor) = visits.join_next().await {
        visitors.push(visitor.expect("no visit fails"));
    }
    eventually_within(2 * PATIENCE, "everyone is told to be gone", async || is_over(&receiver.told_once())).await;
    // Nothing is told of those who were merged by the hold: wait until the last due has been told as well.
    tokio::time::sleep(SWEPT.1 + HOLD).await;
    eventually_within(PATIENCE, "everyone is told to be gone", async || is_over(&receiver.told_once())).await;
    check_ids(&receiver.told());
    let sequences = sequences(&receiver.told_once());
    let mut certain = 0;
    for visitor in &visitors {
        for channel in &visitor.channels {
            certain += check(visitor, channel, &sequences);
        }
    }
    println!("{certain} transitions were certain");
    assert!(certain > GUESTS * CHANNELS_EACH, "too few were certain for this to mean anything: {certain}");
    cluster.stop().await;
}

/// Comes and goes, each time on a gateway that happens to run.
async fn visit(mut visitor: Visitor, mut rng: StdRng, places: Gateways, kills: Arc<Kills>) -> Visitor {
    let mut visits = Vec::new();
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..3000))).await;
    for _ in 0..VISITS {
        let index = rng.random_range(0..2);
        let place = places.lock().expect("nobody panics with it")[index].clone();
        let Some(place) = place else { continue };
        let came = Instant::now();
        let Ok(mut client) = TestClient::try_connect(&place, &setup::app(), &Options::default()).await else {
            continue;
        };
        for channel in &visitor.channels {
            client.ask(channel, visitor.is_user.then(|| json!({ "user_id": visitor.name })).as_ref());
        }
        let leaves = tokio::time::sleep(Duration::from_millis(rng.random_range(1000..4000)));
        tokio::pin!(leaves);
        let (mut answers, mut since) = (0, None);
        let killed = loop {
            tokio::select! {
                () = &mut leaves => break false,
                message = client.next_if_any() => match message {
                    Some(message) if message.event == "pusher_internal:subscription_succeeded" => {
                        answers += 1;
                        if answers == visitor.channels.len() {
                            since = Some(Instant::now());
                        }
                    }
                    Some(_) => {}
                    None => break true,
                },
            }
        };
        drop(client);
        visits.push(Visit { index, came, since, left: Instant::now(), killed });
        let is_short = rng.random_ratio(1, 2);
        let away = if is_short { rng.random_range(0..800) } else { rng.random_range(5500..8000) };
        tokio::time::sleep(Duration::from_millis(away)).await;
    }
    // All that may bear on the last stay is known by then.
    tokio::time::sleep(SLACK).await;
    let kills = kills.lock().expect("nobody panics with it");
    visitor.stays = visits.iter().map(|visit| visit.stay(&kills)).collect();
    visitor
}

/// What a visitor knows of one stay.
struct Visit {
    /// The gateway.
    index: usize,
    came: Instant,
    since: Option<Instant>,
    left: Instant,
    /// Whether the gateway ended it.
    killed: bool,
}

impl Visit {
    /// What follows for the cluster. A gateway that was killed just when its visitor left may have told nobody of that.
    fn stay(&self, kills: &[(usize, Instant)]) -> Stay {
        let Self { index, came, since, left, killed } = *self;
        let may_be_lost = kills.iter().any(|(place, at)| *place == index && came < *at && *at < left + SLACK);
        let until = match (killed, may_be_lost) {
            (true, _) => (left + SWEPT.0, left + SWEPT.1),
            (false, true) => (left, left + SLACK + SWEPT.1),
            (false, false) => (left, left + SLACK),
        };
        Stay { since, until }
    }
}

/// By channel and user, what was told in order; an empty user is the channel itself.
fn sequences(once: &[Told]) -> BTreeMap<(String, String), Vec<String>> {
    let mut sequences: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for told in once {
        let user = told.event["user_id"].as_str().unwrap_or_default().to_owned();
        sequences.entry((told.channel.clone(), user)).or_default().push(told.name.clone());
    }
    sequences
}

fn is_over(once: &[Told]) -> bool {
    let is_end = |name: &String| name == "channel_vacated" || name == "member_removed";
    sequences(once).values().all(|names| names.last().is_some_and(is_end))
}

/// Repeats are the same event under the same id.
fn check_ids(all: &[Told]) {
    let mut by_id: HashMap<&str, &Told> = HashMap::new();
    for told in all {
        assert_eq!(*by_id.entry(&told.id).or_insert(told), told, "one id, one event");
    }
}

/// Compares what was told of a visitor with its stays; returns how many transitions were certain.
fn check(visitor: &Visitor, channel: &str, sequences: &BTreeMap<(String, String), Vec<String>>) -> usize {
    let user = if visitor.is_user { visitor.name.clone() } else { String::new() };
    let told = sequences.get(&(channel.to_owned(), user)).cloned().unwrap_or_default();
    let pair =
        if visitor.is_user { ["member_added", "member_removed"] } else { ["channel_occupied", "channel_vacated"] };
    for (index, name) in told.iter().enumerate() {
        assert_eq!(name, pair[index % 2], "{channel} {}: {told:?}", visitor.name);
    }
    let (least, most) = periods(&visitor.stays);
    let periods = told.len() / 2;
    assert!(
        told.len().is_multiple_of(2) && (least..=most).contains(&periods),
        "{} in {channel} was there {least} to {most} times, but was told of as {told:?}: {:?}",
        visitor.name,
        visitor.stays
    );
    if least == most { 2 * least } else { 0 }
}

/// How often someone was there, as far as that can be told: at least and at most.
fn periods(stays: &[Stay]) -> (usize, usize) {
    let (mut least, mut most) = (0, 0);
    // Until when those before were there, at the earliest and at the latest.
    let mut before: Option<(Instant, Instant)> = None;
    for stay in stays {
        let Some(since) = stay.since else {
            // It may have stood, and may have joined what was before and after.
            most += 1;
            before = before
                .map(|(earliest, latest)| (earliest, latest.max(stay.until.1)))
                .or(Some((stay.until.0 - HOLD, stay.until.1)));
            least = usize::from(least > 0);
            continue;
        };
        let is_apart = before.is_none_or(|(_, latest)| since > latest + HOLD + SLACK);
        let is_joined = before.is_some_and(|(earliest, _)| since + SLACK < earliest + HOLD);
        least += usize::from(is_apart || least == 0);
        most += usize::from(!is_joined);
        before = Some(
            before.map_or(stay.until, |(earliest, latest)| (earliest.max(stay.until.0), latest.max(stay.until.1))),
        );
    }
    (least, most.max(least))
}
