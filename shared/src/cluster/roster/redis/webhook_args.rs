//! What scripts are told so that a change is told by webhooks.

use redis::ScriptInvocation;

use super::{RedisRoster, lock};
use crate::cluster::envelope::Topic;

/// What a script needs to tell of a change by webhooks.
pub(super) struct Hooks {
    queue: String,
    news: String,
    holds: String,
    /// Of what is asserted again: tombstones of the node's earlier ids.
    earlier: Vec<String>,
    base: String,
    app: String,
    /// Letters of the kinds that are wanted.
    wanted: String,
    /// Whether the node does not assert it again.
    is_news: bool,
}

impl Hooks {
    /// Adds the keys that come last.
    pub(super) fn add_keys(&self, call: &mut ScriptInvocation<'_>) {
        call.key(&self.queue).key(&self.news).key(&self.holds);
        for earlier in &self.earlier {
            call.key(earlier);
        }
    }

    /// Adds the arguments.
    pub(super) fn add_arguments(&self, call: &mut ScriptInvocation<'_>) {
        call.arg(&self.app).arg(&self.wanted).arg(&self.base).arg(u8::from(self.is_news));
    }
}

impl RedisRoster {
    /// What scripts are told of the webhooks of a channel.
    pub(super) fn hooks(&self, topic: &Topic, is_again: bool) -> Hooks {
        let keys = self.link.keys();
        let partition = keys.partition(topic);
        let earlier = if is_again { lock(&self.identity).earlier.clone() } else { Vec::new() };
        let channel = keys.channel(topic);
        Hooks {
            queue: keys.webhook_queue(&topic.app, partition),
            news: keys.webhook_ready_apps(partition),
            holds: keys.webhook_holds(partition),
            earlier: earlier.iter().map(|node| channel.tombstone(&node.to_string())).collect(),
            base: keys.partition_prefix(partition),
            app: topic.app.to_string(),
            wanted: self.event_types.of(&topic.app).to_string(),
            is_news: !is_again,
        }
    }
}
