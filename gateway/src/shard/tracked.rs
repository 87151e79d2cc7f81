//! Work of a shard that must be complete before the node ends.

use std::rc::Rc;
use std::sync::Arc;

use shared::cluster::bus::Message;
use tokio::sync::mpsc;

use super::Shard;
use crate::limits::PUBLISH_BATCH;
use crate::node::Node;

/// Work in flight that must not be cut off when the node leaves; it ends when dropped, however that comes about.
pub(crate) struct Chore {
    shard: Rc<Shard>,
}

impl Chore {
    pub(crate) fn begin(shard: &Rc<Shard>) -> Self {
        shard.chores.set(shard.chores.get() + 1);
        Self { shard: shard.clone() }
    }
}

impl Drop for Chore {
    fn drop(&mut self) {
        self.shard.chores.set(self.shard.chores.get() - 1);
        self.shard.settle();
    }
}

impl Shard {
    /// Runs work that must be done before the node may end.
    pub(crate) fn chore(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        let chore = Chore::begin(self);
        tokio::task::spawn_local(async move {
            let _chore = chore;
            work.await;
        });
    }
}

/// Publishes the client events of a shard, in the order in which they came.
pub(super) async fn publish_client_events(node: Arc<Node>, mut queue: mpsc::Receiver<(Message, Chore)>) {
    let mut batch = Vec::with_capacity(PUBLISH_BATCH);
    while queue.recv_many(&mut batch, PUBLISH_BATCH).await > 0 {
        let count = batch.len() as u64;
        let (messages, _chores): (Vec<Message>, Vec<Chore>) = batch.drain(..).unzip();
        if let Err(error) = node.relay.bus().publish(messages).await {
            node.metrics.client_events_dropped.inc_by(count);
            tracing::warn!(%error, count, "client events dropped");
        }
    }
}
