//! The names of all keys and topics that Carillon has in Redis. No other module builds names.
//!
//! `{p}` in a name is the partition of a channel. All keys of one channel and its topic share a slot of a Redis
//! Cluster.

use std::fmt::Write;

use crate::app::AppId;
use crate::cluster::envelope::Topic;
use crate::cluster::node::NodeId;
use crate::fnv::fnv1a;

// The kinds of keys that Lua functions build too.
const SUBSCRIPTION_COUNTS: &str = "oc";
const WEBHOOK_QUEUE: &str = "wq";

/// The end of the key of a stream's state, after the key of the stream.
const STREAM_STATE: &str = ":m";

/// A builder of key names under one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
    partitions: u32,
}

/// A builder of the key names of one channel.
#[derive(Clone, Debug)]
pub struct ChannelKeys {
    base: String,
    name: String,
}

impl Keys {
    /// Returns a builder of names that start with `prefix`. Channels are distributed over `partitions`.
    pub fn new(prefix: &str, partitions: u32) -> Self {
        Self { prefix: prefix.to_owned(), partitions: partitions.max(1) }
    }

    /// Returns the number of partitions.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Returns the partition of a channel. It is the same on every node and in every version.
    ///
    /// The hash is FNV-1a. Names differ most in their last bytes, which affect few bits of an FNV hash. The finalizer
    /// of `MurmurHash3` spreads them.
    pub fn partition(&self, topic: &Topic) -> u32 {
        let bytes = topic.app.as_str().bytes().chain([b'/']).chain(topic.channel.as_str().bytes());
        self.partition_of(bytes)
    }

    fn partition_of(&self, bytes: impl Iterator<Item = u8>) -> u32 {
        u32::try_from(mixed(fnv1a(bytes)) % u64::from(self.partitions)).unwrap_or(0)
    }

    /// Returns a builder of the key names of one channel.
    pub fn channel(&self, topic: &Topic) -> ChannelKeys {
        ChannelKeys { base: self.partition_prefix(self.partition(topic)), name: topic.to_string() }
    }

    /// Returns the topic of a channel, like [`ChannelKeys::topic`]. Every event needs it, so this takes a single
    /// allocation.
    pub fn topic(&self, topic: &Topic) -> String {
        let partition = self.partition(topic);
        let mut name =
            String::with_capacity(self.prefix.len() + topic.app.as_str().len() + topic.channel.as_str().len() + 16);
        // Writing to a String cannot fail.
        let _ = write!(name, "{}:{{{partition}}}:c:{}/{}", self.prefix, topic.app.as_str(), topic.channel.as_str());
        name
    }

    /// Returns the set of an app's occupied channels in one partition.
    pub fn occupied(&self, app: &AppId, partition: u32) -> String {
        format!("{}:ch:{app}", self.partition_prefix(partition))
    }

    /// Returns the sorted set of nodes. The score is the expiry of the lease, in milliseconds of Redis' clock.
    pub fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    /// Returns the key that exists for a time after all leases had expired. Expired leases count while it exists,
    /// because running nodes are about to renew theirs.
    pub fn lease_grace(&self) -> String {
        format!("{}:quiet", self.prefix)
    }

    /// Returns the key that exists if a node was declared dead. The node must take a new id.
    pub fn node_tombstone(&self, node: &str) -> String {
        format!("{}:t:{node}", self.prefix)
    }

    /// Returns the sorted set of dead nodes that are not completely swept. The score is the time of death, in seconds
    /// of Redis' clock.
    pub fn dead(&self) -> String {
        format!("{}:dead", self.prefix)
    }

    /// Returns the set of what a node may have in Redis: `APP/CHANNEL`, or `APP/` for connections.
    pub fn index(&self, node: &str) -> String {
        format!("{}:idx:{node}", self.prefix)
    }

    /// Returns the key with the id of the node that sweeps a dead one.
    pub fn sweep_claim(&self, node: &str) -> String {
        format!("{}:sweep:{node}", self.prefix)
    }

    /// Returns the hash of an app's connections by node.
    pub fn connections(&self, app: &AppId) -> String {
        format!("{}:conn:{app}", self.prefix)
    }

    /// Returns the hash of the last report of an app's connections by node, in milliseconds of Redis' clock.
    pub fn connection_reports(&self, app: &AppId) -> String {
        format!("{}:connat:{app}", self.prefix)
    }

    /// Returns the topic on which gateways are requested to report their connections of an app. A message is the app
    /// id.
    pub fn recount(&self) -> String {
        format!("{}:recount", self.prefix)
    }

    /// Returns the topic on which a node checks its own subscription.
    pub fn probe(&self, node: NodeId) -> String {
        format!("{}:probe:{node}", self.prefix)
    }

    /// Returns the key that a node writes to check that the server accepts writes.
    pub fn write_probe(&self, node: NodeId) -> String {
        format!("{}:write:{node}", self.prefix)
    }

    /// Returns the key with the address of the gateway that has a fallback session. `name` is the session's name.
    pub fn fallback_session(&self, name: &str) -> String {
        format!("{}:hs:{name}", self.partition_prefix(self.fallback_session_partition(name)))
    }

    /// Returns the partition of a fallback session.
    pub fn fallback_session_partition(&self, name: &str) -> u32 {
        self.partition_of(name.bytes())
    }

    /// Returns the stream of an app's webhook events. It has a consumer group for each endpoint.
    pub fn webhook_queue(&self, app: &AppId, partition: u32) -> String {
        format!("{}:{WEBHOOK_QUEUE}:{app}", self.partition_prefix(partition))
    }

    /// Returns the stream of an app's dead letters.
    pub fn webhook_dead_letters(&self, app: &AppId, partition: u32) -> String {
        format!("{}:wd:{app}", self.partition_prefix(partition))
    }

    /// Returns the set of apps that have new events in their queues.
    pub fn webhook_ready_apps(&self, partition: u32) -> String {
        format!("{}:wn", self.partition_prefix(partition))
    }

    /// Returns the sorted set of held webhook events. The score is the time at which an event is due, in milliseconds
    /// of Redis' clock.
    pub fn webhook_holds(&self, partition: u32) -> String {
        format!("{}:wh", self.partition_prefix(partition))
    }

    /// Returns the key with the id of the dispatcher that has a partition.
    pub fn webhook_lease(&self, partition: u32) -> String {
        format!("{}:wl", self.partition_prefix(partition))
    }

    /// Returns the start of all key names of a partition.
    pub(crate) fn partition_prefix(&self, partition: u32) -> String {
        format!("{}:{{{partition}}}", self.prefix)
    }
}

/// Returns Lua functions, each as its name and its text. Scripts build these names because they depend on data in
/// Redis.
pub(crate) fn lua_functions() -> [(&'static str, String); 3] {
    let function = |name: &'static str, parameters: &str, key: &str| {
        (name, format!("local function {name}({parameters}) return {key} end\n"))
    };
    [
        function("stream_state_key", "stream", &format!("stream .. '{STREAM_STATE}'")),
        function(
            "webhook_queue_key",
            "partition_prefix, app",
            &format!("partition_prefix .. ':{WEBHOOK_QUEUE}:' .. app"),
        ),
        function(
            "subscription_counts_key",
            "partition_prefix, app, channel",
            &format!("partition_prefix .. ':{SUBSCRIPTION_COUNTS}:' .. app .. '/' .. channel"),
        ),
    ]
}

/// Mixes the bits of a hash so that each input bit affects all output bits. Source: `fmix64` of `MurmurHash3`, which is
/// in the public domain.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

impl ChannelKeys {
    /// Returns the topic of the channel.
    pub fn topic(&self) -> String {
        self.key("c")
    }

    /// Returns the hash of the channel's members: user info by user id.
    pub fn members(&self) -> String {
        self.key("pm")
    }

    /// Returns the hash of the nodes of each member: concatenated node ids by user id.
    pub fn member_nodes(&self) -> String {
        self.key("pr")
    }

    /// Returns the hash of the channel's epochs and sequences.
    pub fn meta(&self) -> String {
        self.key("m")
    }

    /// Returns the hash of the channel's subscriptions by node.
    pub fn subscription_counts(&self) -> String {
        self.key(SUBSCRIPTION_COUNTS)
    }

    /// Returns the key with the cached event of the channel.
    pub fn cached_event(&self) -> String {
        self.key("k")
    }

    /// Returns the key that exists if a node was swept from this channel. Later changes by that node have no effect.
    pub fn tombstone(&self, node: &str) -> String {
        format!("{}:{node}", self.key("t"))
    }

    /// Returns the key that exists for a time after a webhook reported a cache miss.
    pub fn cache_miss_sent(&self) -> String {
        self.key("wm")
    }

    fn key(&self, kind: &str) -> String {
        format!("{}:{kind}:{}", self.base, self.name)
    }
}

#[cfg(test)]
mod tests;
