//! The turns of a shard: how much it sends before it serves its other clients.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use shared::cluster::envelope::{Topic, unix_us};
use shared::protocol::SocketId;

use super::Shard;
use super::hub::Part;
use crate::inbox::{Broadcast, ShardMessage};
use crate::limits::BURST_COST_MAX;

/// The progress of a broadcast in one turn.
struct Sent {
    /// The number of subscribers that receive the frame.
    reached: usize,
    /// The frame, and where the next turn starts; `None` when all subscribers receive it.
    rest: Option<(Bytes, usize)>,
}

impl Shard {
    /// Handles messages of the inbox, in as many turns as their deliveries need.
    pub(super) async fn handle(self: &Rc<Self>, batch: &mut Vec<ShardMessage>) {
        let mut published_us: Vec<u64> = Vec::new();
        for message in batch.drain(..) {
            if let Some(Broadcast { topic, frame, except, published_at_us }) = self.handle_one(message) {
                let mut sent = self.broadcast(&topic, frame, except, 0);
                let mut reached = sent.reached;
                while let Some((frame, from)) = sent.rest {
                    self.end_turn(&mut published_us).await;
                    sent = self.broadcast(&topic, frame, except, from);
                    reached += sent.reached;
                }
                published_us.extend(published_at_us);
                self.node.metrics.traffic.fanout_subscribers.observe(reached as f64);
            }
            if self.burst.borrow().is_large() {
                self.end_turn(&mut published_us).await;
            }
        }
        self.end_turn(&mut published_us).await;
    }

    /// Writes the current burst. If the shard has spent enough on fan-out, other clients are served before this
    /// returns. `published_us`: when the events of the burst were published, in microseconds of Unix time.
    pub(super) async fn end_turn(self: &Rc<Self>, published_us: &mut Vec<u64>) {
        let spent = self.spent.get() + self.burst.borrow().cost();
        self.flush();
        if !published_us.is_empty() {
            let now_us = unix_us();
            for published_us in published_us.drain(..) {
                let seconds = Duration::from_micros(now_us.saturating_sub(published_us)).as_secs_f64();
                self.node.metrics.traffic.delivery_seconds.observe(seconds);
            }
        }
        if spent < BURST_COST_MAX {
            self.spent.set(spent);
        } else {
            self.spent.set(0);
            tokio::task::yield_now().await;
        }
    }

    /// Appends a frame to subscribers of a channel, starting at the slot `from`. Stops when the turn has no room left.
    fn broadcast(&self, topic: &Topic, frame: Bytes, except: Option<SocketId>, from: usize) -> Sent {
        let mut burst = self.burst.borrow_mut();
        let part = Part { from, count_max: burst.room_for(frame.len()) };
        let frame = burst.frame(frame);
        let fanout = self.hub.borrow().broadcast(topic, frame, except, part, &mut burst);
        Sent { reached: fanout.reached, rest: fanout.next.map(|next| (burst.copy_of(frame), next)) }
    }
}
