use std::future::ready;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use shared::app::AppId;
use shared::cluster::bus::{Bus, BusError, MemoryBus, Message};
use shared::cluster::envelope::{CachedEvent, Topic};
use shared::cluster::roster::{Claimed, Joined, MemoryRoster, Occupancy, Roster, RosterError};
use shared::protocol::{ChannelName, Member, UserId};

use super::harness::{Reply, World};

/// A bus and a roster that are always unavailable.
struct Unavailable;

#[track_caller]
fn check(reply: &Reply) {
    reply.refused(503, "The service is temporarily unavailable, please retry");
    assert_eq!(reply.header("retry-after"), Some("1"));
}

const EVENT: &str = r#"{"name":"e","data":"x","channel":"a"}"#;

#[tokio::test]
async fn a_publish_fails_while_the_bus_is_unavailable() {
    let world = World::through(Arc::new(Unavailable), MemoryRoster::new(MemoryBus::new()));
    check(&world.post("/apps/3/events", EVENT).await);
    check(&world.post("/apps/3/batch_events", &format!(r#"{{"batch":[{EVENT}]}}"#)).await);
    check(&world.post("/apps/3/users/1/terminate_connections", "{}").await);
}

#[tokio::test]
async fn requests_for_channel_state_fail_while_the_roster_is_unavailable() {
    let world = World::through(MemoryBus::new(), Arc::new(Unavailable));
    check(&world.get("/apps/3/channels", &[]).await);
    check(&world.get("/apps/3/channels/a", &[]).await);
    check(&world.get("/apps/3/channels/presence-a/users", &[]).await);
    check(&world.get("/apps/3/connections", &[]).await);
    world.post("/apps/3/events", EVENT).await.ok("{}");
}

#[tokio::test]
async fn an_event_is_published_without_counts_while_the_roster_is_unavailable() {
    let bus = MemoryBus::new();
    let world = World::through(bus.join(), Arc::new(Unavailable));
    let counted = r#"{"name":"e","data":"x","channel":"cache-a","info":"subscription_count"}"#;
    world.post("/apps/3/events", counted).await.ok(r#"{"channels":{"cache-a":{}}}"#);
    let kept = MemoryRoster::new(bus.clone()).cached(&world.topic("cache-a")).await.unwrap();
    assert!(kept.is_some());
    world.post("/apps/3/batch_events", &format!(r#"{{"batch":[{counted}]}}"#)).await.ok(r#"{"batch":[{}]}"#);
}

fn unavailable<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, RosterError>> {
    Box::pin(ready(Err(RosterError::Unavailable)))
}

impl Bus for Unavailable {
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

impl Roster for Unavailable {
    fn join<'a>(
        &'a self,
        _: &'a Topic,
        _: &'a Member,
        _: usize,
        _: bool,
    ) -> BoxFuture<'a, Result<Joined, RosterError>> {
        unavailable()
    }

    fn leave<'a>(&'a self, _: &'a Topic, _: &'a UserId) -> BoxFuture<'a, Result<(), RosterError>> {
        unavailable()
    }

    fn own_members<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<Vec<UserId>, RosterError>> {
        unavailable()
    }

    fn members<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<Vec<Member>, RosterError>> {
        unavailable()
    }

    fn set_subscriptions<'a>(&'a self, _: &'a Topic, _: u64, _: bool) -> BoxFuture<'a, Result<(), RosterError>> {
        unavailable()
    }

    fn occupancy<'a>(&'a self, _: &'a [Topic]) -> BoxFuture<'a, Result<Vec<Occupancy>, RosterError>> {
        unavailable()
    }

    fn channels<'a>(
        &'a self,
        _: &'a AppId,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(ChannelName, Occupancy)>, RosterError>> {
        unavailable()
    }

    fn cached<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<Option<CachedEvent>, RosterError>> {
        unavailable()
    }

    fn report_connections<'a>(&'a self, _: &'a AppId, _: u64) -> BoxFuture<'a, Result<u64, RosterError>> {
        unavailable()
    }

    fn claim_connections<'a>(
        &'a self,
        _: &'a AppId,
        _: u64,
        _: u64,
        _: u64,
    ) -> BoxFuture<'a, Result<Claimed, RosterError>> {
        unavailable()
    }

    fn connections<'a>(&'a self, _: &'a AppId) -> BoxFuture<'a, Result<u64, RosterError>> {
        unavailable()
    }
}
