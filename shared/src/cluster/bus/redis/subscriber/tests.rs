use std::time::Duration;

use crate::serve::telemetry::metrics::Registry;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::*;
use crate::app::AppId;
use crate::cluster::envelope::Envelope;
use crate::cluster::redis::Config;
use crate::cluster::redis::metrics::Metrics;
use crate::cluster::redis::server::RedisServer;
use crate::protocol::ChannelName;
use crate::secret::Secret;

struct NoSink;

impl EnvelopeSink for NoSink {
    fn deliver(&self, _: &Topic, _: Envelope) {}
}

fn topic(name: &str) -> Topic {
    Topic::new(&AppId::from("shop"), &ChannelName::parse(name, 200).unwrap())
}

fn subscriber_of(config: &Config) -> Arc<Subscriber> {
    let link = Link::new(config, Handle::current(), Metrics::new(&Registry::new(), true)).unwrap();
    let subscriber = Subscriber::new(link);
    subscriber.start(Arc::new(NoSink));
    subscriber
}

fn unreachable() -> Arc<Subscriber> {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("redis+unix://{}", folder.path().join("missing.sock").display());
    subscriber_of(&Config { url: Secret::new(url), ..Config::default() })
}

#[tokio::test]
async fn only_subscribed_topics_are_stored_while_redis_is_unreachable() {
    const ROUNDS: usize = 200;
    const AT_ONCE: usize = 100;
    let subscriber = unreachable();
    let waiting_subscription = tokio::spawn({
        let subscriber = subscriber.clone();
        async move { subscriber.subscribe(&topic("stays")).await }
    });
    for round in 0..ROUNDS {
        let mut waiting = JoinSet::new();
        for number in 0..AT_ONCE {
            let subscriber = subscriber.clone();
            waiting.spawn(async move {
                let own = topic(&format!("own-{round}-{number}"));
                // The first call times out. The second one fails because its topic is unsubscribed.
                let given_up = tokio::time::timeout(Duration::ZERO, subscriber.subscribe(&own)).await;
                assert!(given_up.is_err());
                let unsubscribe = async {
                    tokio::task::yield_now().await;
                    subscriber.unsubscribe(&own).await;
                };
                let (subscribed, ()) = tokio::join!(subscriber.subscribe(&own), unsubscribe);
                assert_eq!(subscribed, Err(BusError::Unavailable));
            });
        }
        waiting.join_all().await;
        let state = subscriber.lock();
        assert_eq!((state.topics.len(), state.topics.has_changes()), (1, false), "after {round} rounds");
    }
    assert!(!waiting_subscription.is_finished());
    subscriber.unsubscribe(&topic("stays")).await;
    assert_eq!(waiting_subscription.await.unwrap(), Err(BusError::Unavailable));
    assert_eq!(subscriber.lock().topics.len(), 0);
}

#[tokio::test]
async fn all_callers_that_wait_for_one_topic_resolve_when_redis_starts() {
    let server = RedisServer::start_later();
    let subscriber = subscriber_of(&server.config());
    let mut waiting = JoinSet::new();
    for number in 0..500 {
        let subscriber = subscriber.clone();
        waiting.spawn(async move {
            subscriber.subscribe(&topic(&format!("shared-{}", number % 5))).await.unwrap();
            subscriber.catch_up().await;
        });
    }
    while subscriber.lock().topics.len() < 5 {
        tokio::task::yield_now().await;
    }
    let _server = server.begin();
    waiting.join_all().await;
    assert_eq!(subscriber.lock().topics.len(), 5);
}
