//! The arguments with which a script enqueues webhook events of a change.

use redis::ScriptInvocation;

use super::{RedisRoster, Report};
use crate::cluster::envelope::Topic;
use crate::sync::lock;

/// Keys and arguments for the functions of `scripts/parts/webhooks.lua`.
pub(super) struct WebhookArgs {
    queue: String,
    ready_apps: String,
    holds: String,
    /// The tombstones of the channel under the node's earlier ids, for a repeated report.
    tombstones: Vec<String>,
    partition_prefix: String,
    app: String,
    /// The letters of the webhook kinds that endpoints of the app request.
    kinds: String,
    report: Report,
}

impl WebhookArgs {
    /// Adds the keys. They must be the last keys of the script.
    pub(super) fn add_keys(&self, call: &mut ScriptInvocation<'_>) {
        call.key(&self.queue).key(&self.ready_apps).key(&self.holds);
        for tombstone in &self.tombstones {
            call.key(tombstone);
        }
    }

    /// Adds the arguments.
    pub(super) fn add_arguments(&self, call: &mut ScriptInvocation<'_>) {
        let is_new = u8::from(self.report == Report::New);
        call.arg(&self.app).arg(&self.kinds).arg(&self.partition_prefix).arg(is_new);
    }
}

impl RedisRoster {
    /// Returns the webhook arguments for a change of a channel.
    pub(super) fn webhook_args(&self, topic: &Topic, report: Report) -> WebhookArgs {
        let keys = self.link.keys();
        let (partition, channel) = (keys.partition(topic), keys.channel(topic));
        let earlier = match report {
            Report::New => Vec::new(),
            Report::Repeated => lock(&self.identity).earlier.clone(),
        };
        WebhookArgs {
            queue: keys.webhook_queue(&topic.app, partition),
            ready_apps: keys.webhook_ready_apps(partition),
            holds: keys.webhook_holds(partition),
            tombstones: earlier.iter().map(|node| channel.tombstone(&node.to_string())).collect(),
            partition_prefix: keys.partition_prefix(partition),
            app: topic.app.to_string(),
            kinds: self.event_types.of(&topic.app).to_string(),
            report,
        }
    }
}
