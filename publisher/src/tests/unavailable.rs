use std::future::ready;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use shared::app::AppId;
use shared::cluster::bus::{Bus, BusError, MemoryBus, Message};
use shared::cluster::envelope::Topic;
use shared::cluster::roster::{Claimed, Joined, KeptEvent, MemoryRoster, Occupancy, Roster, RosterError};
use shared::protocol::{ChannelName, Member, UserId};

use super::harness::{Reply, World};

/// A bus and a roster that cannot be reached.
struct Away;

#[track_caller]
fn check(reply: &Reply) {
    reply.refused(503, "The service is temporarily unavailable, please retry");
    assert_eq!(reply.header("retry-after"), Some("1"));
}

const EVENT: &str = r#"{"name":"e","data":"x","channel":"a"}"#;

#[tokio::test]
async fn nothing_is_accepted_that_nobody_will_hear() {
    let world = World::through(Arc::new(Away), MemoryRoster::new(MemoryBus::new()));
    check(&world.post("/apps/3/events", EVENT).await);
    check(&world.post("/apps/3/batch_events", &format!(r#"{{"batch":[{EVENT}]}}"#)).await);
    check(&world.post("/apps/3/users/1/terminate_connections", "{}").await);
}

#[tokio::test]
async fn questions_are_not_answered_with_guesses() {
    let world = World::through(MemoryBus::new(), Arc::new(Away));
    check(&world.get("/apps/3/channels", &[]).await);
    check(&world.get("/apps/3/channels/a", &[]).await);
    check(&world.get("/apps/3/channels/presence-a/users", &[]).await);
    check(&world.get("/apps/3/connections", &[]).await);
    world.post("/apps/3/events", EVENT).await.ok("{}");
}

#[tokio::test]
async fn an_event_is_published_without_counts_that_are_unavailable() {
    let bus = MemoryBus::new();
    let world = World::through(bus.join(), Arc::new(Away));
    let counted = r#"{"name":"e","data":"x","channel":"cache-a","info":"subscription_count"}"#;
    world.post("/apps/3/events", counted).await.ok(r#"{"channels":{"cache-a":{}}}"#);
    let kept = MemoryRoster::new(bus.clone()).kept(&world.topic("cache-a")).await.unwrap();
    assert!(kept.is_some());
    world.post("/apps/3/batch_events", &format!(r#"{{"batch":[{counted}]}}"#)).await.ok(r#"{"batch":[{}]}"#);
}

fn away<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, RosterError>> {
    Box::pin(ready(Err(RosterError::Unavailable)))
}

impl Bus for Away {
    fn publish(&self, _: Vec<Message>) -> BoxFuture<'_, Result<(), BusError>> {
        Box::pin(ready(Err(BusError::Unavailable)))
    }

    fn subscribe<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(ready(Err(BusError::Unavailable)))
    }

    fn unsubscribe<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, ()> {
        Box::pin(ready(()))
    }

    fn catch_up(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

impl Roster for Away {
    fn join<'a>(
        &'a self,
        _: &'a Topic,
        _: &'a Member,
        _: usize,
        _: bool,
    ) -> BoxFuture<'a, Result<Joined, RosterError>> {
        away()
    }

    fn leave<'a>(&'a self, _: &'a Topic, _: &'a UserId) -> BoxFuture<'a, Result<(), RosterError>> {
        away()
    }

    fn own_members<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<Vec<UserId>, RosterError>> {
        away()
    }

    fn members<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<Vec<Member>, RosterError>> {
        away()
    }

    fn set_subscriptions<'a>(&'a self, _: &'a Topic, _: u64, _: bool) -> BoxFuture<'a, Result<(), RosterError>> {
        away()
    }

    fn occupancy<'a>(&'a self, _: &'a [Topic]) -> BoxFuture<'a, Result<Vec<Occupancy>, RosterError>> {
        away()
    }

    fn channels<'a>(
        &'a self,
        _: &'a AppId,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(ChannelName, Occupancy)>, RosterError>> {
        away()
    }

    fn kept<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<Option<KeptEvent>, RosterError>> {
        away()
    }

    fn report_connections<'a>(&'a self, _: &'a AppId, _: u64) -> BoxFuture<'a, Result<u64, RosterError>> {
        away()
    }

    fn claim_connections<'a>(
        &'a self,
        _: &'a AppId,
        _: u64,
        _: u64,
        _: u64,
    ) -> BoxFuture<'a, Result<Claimed, RosterError>> {
        away()
    }

    fn connections<'a>(&'a self, _: &'a AppId) -> BoxFuture<'a, Result<u64, RosterError>> {
        away()
    }
}
