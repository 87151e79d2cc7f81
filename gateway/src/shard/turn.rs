//! Turns of a shard: how much it sends before it serves its other clients.

use std::rc::Rc;
use std::time::Duration;

use shared::envelope::unix_us;

use super::Shard;
use super::hub::Part;
use super::inbox::{Broadcast, ShardMessage};
use crate::limits::BURST_COST_MAX;

impl Shard {
    /// Handles messages of the inbox, in as many turns as their deliveries take.
    pub(super) async fn handle(self: &Rc<Self>, batch: &mut Vec<ShardMessage>) {
        let mut stamps_us: Vec<u64> = Vec::new();
        for message in batch.drain(..) {
            self.handle_one(message, &mut stamps_us).await;
            if self.burst.borrow().is_large() {
                self.end_turn(&mut stamps_us).await;
            }
        }
        self.end_turn(&mut stamps_us).await;
    }

    /// Writes the current burst. If the shard has spent enough on fan-out, the other clients are served before this
    /// returns. `stamps_us`: when the events of the burst were published.
    pub(super) async fn end_turn(self: &Rc<Self>, stamps_us: &mut Vec<u64>) {
        let spent = self.spent.get() + self.burst.borrow().cost();
        self.flush();
        if !stamps_us.is_empty() {
            let now_us = unix_us();
            for stamp_us in stamps_us.drain(..) {
                let seconds = Duration::from_micros(now_us.saturating_sub(stamp_us)).as_secs_f64();
                self.node.metrics.delivery_seconds.observe(seconds);
            }
        }
        if spent < BURST_COST_MAX {
            self.spent.set(spent);
        } else {
            self.spent.set(0);
            tokio::task::yield_now().await;
        }
    }

    /// Sends a frame to the subscribers of a channel, in several turns if they are many.
    pub(super) async fn broadcast(self: &Rc<Self>, broadcast: Broadcast, stamps_us: &mut Vec<u64>) {
        let Broadcast { topic, frame, except, published_at_us } = broadcast;
        let (mut reached, mut from) = (0, 0);
        loop {
            let fanout = {
                let mut burst = self.burst.borrow_mut();
                let count_max = burst.room_for(frame.len());
                let frame = burst.frame(frame.clone());
                self.hub.borrow().broadcast(&topic, frame, except, Part { from, count_max }, &mut burst)
            };
            reached += fanout.reached;
            match fanout.next {
                Some(next) => from = next,
                None => break,
            }
            self.end_turn(stamps_us).await;
        }
        stamps_us.extend(published_at_us);
        self.node.metrics.fanout_subscribers.observe(reached as f64);
    }
}
