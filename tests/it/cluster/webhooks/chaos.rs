//! Many transitions on all nodes while nodes are killed at random.
//!
//! A visitor joins its channels and leaves them again, on any running gateway. Each absence is clearly shorter or
//! clearly longer than the hold. The times of its visits determine the expected webhooks. If a gateway is killed during
//! a visit, the time of the departure is known only roughly, and so are the webhooks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Options, ServerUrl};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tests::receiver::Delivered;
use tests::{Cluster, PATIENCE, Receiver, Setup, TestClient, eventually_within, setup};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The visitors of plain channels. Each has separate channels: a thousand channels in total.
const VISITORS: usize = 250;
const CHANNELS_EACH: usize = 4;
/// The visitors of presence rooms. Each is a different user.
const USERS: usize = 200;
const ROOMS: usize = 10;
const VISITS: usize = 4;
/// The number of kills.
const KILLS: usize = 8;

const HOLD: Duration = Duration::from_secs(3);
/// The longest time between a change and its record in the cluster, on a busy machine.
const SLACK: Duration = Duration::from_millis(1500);
/// The time until the state of a killed gateway is removed. Its lease expires first, which was renewed up to five
/// seconds before. The sweep ends at most 30 s later.
const SWEPT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(32));

/// The addresses of the running gateways.
type Gateways = Arc<Mutex<[Option<ServerUrl>; 2]>>;

/// The killed gateways, with the times of the kills.
type Kills = Mutex<Vec<(usize, Instant)>>;

/// One visit, from the confirmed start to the end.
#[derive(Clone, Copy, Debug)]
struct Stay {
    /// The confirmed start. `None` if the connection ended before the confirmation, although the visit can have started.
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
async fn every_transition_is_delivered_under_one_id_whichever_process_is_killed() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let receiver = Receiver::start().await;
    let setup = Setup::default().limit("presence_members = 200").more(&receiver.endpoint("concurrency = 32"));
    let mut cluster = Cluster::start().publishers(2).setup(setup).await;
    let places: Gateways = Arc::new(Mutex::new([0, 1].map(|index| Some(cluster.gateway(index).url.clone()))));
    let kills: Arc<Kills> = Arc::default();

    let visitors = (0..VISITORS).map(|visitor| Visitor {
        name: format!("visitor-{visitor}"),
        channels: (0..CHANNELS_EACH).map(|channel| format!("room-{visitor}-{channel}")).collect(),
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
    for visitor in visitors.chain(users) {
        visits.spawn(visit(visitor, StdRng::seed_from_u64(rng.random()), places.clone(), kills.clone()));
    }
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(500..3000))).await;
        let index = rng.random_range(0..2);
        let away = Duration::from_millis(rng.random_range(0..4000));
        // Gateways are killed less often than publishers, because the delivery of their departures takes half a minute.
        if rng.random_ratio(1, 3) {
            places.lock().expect("the lock is not poisoned")[index] = None;
            kills.lock().expect("the lock is not poisoned").push((index, Instant::now()));
            cluster.kill_gateway(index).await;
            tokio::time::sleep(away).await;
            cluster.start_gateway(index).await;
            places.lock().expect("the lock is not poisoned")[index] = Some(cluster.gateway(index).url.clone());
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
    eventually_within(2 * PATIENCE, "every departure is delivered", async || is_over(&receiver.delivered_once())).await;
    // Transitions that the hold has merged send no event. Wait until the last due event was delivered.
    tokio::time::sleep(SWEPT.1 + HOLD).await;
    eventually_within(PATIENCE, "every departure is delivered", async || is_over(&receiver.delivered_once())).await;
    check_ids(&receiver.delivered());
    let sequences = sequences(&receiver.delivered_once());
    let mut certain = 0;
    for visitor in &visitors {
        for channel in &visitor.channels {
            certain += check(visitor, channel, &sequences);
        }
    }
    println!("{certain} transitions were certain");
    assert!(certain > VISITORS * CHANNELS_EACH, "too few transitions were certain for a meaningful test: {certain}");
    cluster.stop().await;
}

/// Visits channels repeatedly, each time on a running gateway.
async fn visit(mut visitor: Visitor, mut rng: StdRng, places: Gateways, kills: Arc<Kills>) -> Visitor {
    let mut visits = Vec::new();
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..3000))).await;
    for _ in 0..VISITS {
        let index = rng.random_range(0..2);
        let place = places.lock().expect("the lock is not poisoned")[index].clone();
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
    // All facts about the last visit are known at this point.
    tokio::time::sleep(SLACK).await;
    let kills = kills.lock().expect("the lock is not poisoned");
    visitor.stays = visits.iter().map(|visit| visit.stay(&kills)).collect();
    visitor
}

/// One visit, as the visitor observed it.
struct Visit {
    /// The gateway.
    index: usize,
    came: Instant,
    since: Option<Instant>,
    left: Instant,
    /// Whether the gateway closed the connection.
    killed: bool,
}

impl Visit {
    /// Returns the visit as the cluster sees it. A gateway killed at the departure can have lost it.
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

/// The delivered events in order, by channel and user. An empty user means the channel itself.
fn sequences(once: &[Delivered]) -> BTreeMap<(String, String), Vec<String>> {
    let mut sequences: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for delivered in once {
        let user = delivered.event["user_id"].as_str().unwrap_or_default().to_owned();
        sequences.entry((delivered.channel.clone(), user)).or_default().push(delivered.name.clone());
    }
    sequences
}

fn is_over(once: &[Delivered]) -> bool {
    let is_end = |name: &String| name == "channel_vacated" || name == "member_removed";
    sequences(once).values().all(|names| names.last().is_some_and(is_end))
}

/// Checks that duplicates have the same id and content.
fn check_ids(all: &[Delivered]) {
    let mut by_id: HashMap<&str, &Delivered> = HashMap::new();
    for delivered in all {
        assert_eq!(*by_id.entry(&delivered.id).or_insert(delivered), delivered, "one id, one event");
    }
}

/// Compares the delivered events of a visitor with its visits. Returns the number of certain transitions.
fn check(visitor: &Visitor, channel: &str, sequences: &BTreeMap<(String, String), Vec<String>>) -> usize {
    let user = if visitor.is_user { visitor.name.clone() } else { String::new() };
    let delivered = sequences.get(&(channel.to_owned(), user)).cloned().unwrap_or_default();
    let pair =
        if visitor.is_user { ["member_added", "member_removed"] } else { ["channel_occupied", "channel_vacated"] };
    for (index, name) in delivered.iter().enumerate() {
        assert_eq!(name, pair[index % 2], "{channel} {}: {delivered:?}", visitor.name);
    }
    let (least, most) = periods(&visitor.stays);
    let periods = delivered.len() / 2;
    assert!(
        delivered.len().is_multiple_of(2) && (least..=most).contains(&periods),
        "{} in {channel} was there {least} to {most} times, but was delivered of as {delivered:?}: {:?}",
        visitor.name,
        visitor.stays
    );
    if least == most { 2 * least } else { 0 }
}

/// Returns the lowest and highest possible number of separate presences.
fn periods(stays: &[Stay]) -> (usize, usize) {
    let (mut least, mut most) = (0, 0);
    // The earliest and the latest end of the previous visits.
    let mut before: Option<(Instant, Instant)> = None;
    for stay in stays {
        let Some(since) = stay.since else {
            // The visit can have started, and can have merged the visits before and after it.
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
