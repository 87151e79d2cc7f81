//! Every key and topic that Carillon has in Redis, built here and nowhere else.
//!
//! `{p}` is the partition of a channel: all keys of one channel, and its topic, share a slot of a Redis Cluster.

use std::fmt::Write;

use crate::app::AppId;
use crate::cluster::envelope::Topic;
use crate::cluster::node::NodeId;
use crate::fnv::fnv1a;

/// Builds keys under one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
    partitions: u32,
}

/// The keys of one channel.
#[derive(Clone, Debug)]
pub struct ChannelKeys {
    base: String,
    name: String,
}

impl Keys {
    /// Keys that begin with `prefix`, channels spread over `partitions`.
    pub fn new(prefix: &str, partitions: u32) -> Self {
        Self { prefix: prefix.to_owned(), partitions: partitions.max(1) }
    }

    /// The partitions of this cluster.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The partition of a channel: the same on every node and in every version, so FNV-1a and not the process' own hash.
    /// FNV leaves the last bytes, in which names differ most, in few bits; the mix after it is murmur3's.
    pub fn partition(&self, topic: &Topic) -> u32 {
        let bytes = topic.app.as_str().bytes().chain([b'/']).chain(topic.channel.as_str().bytes());
        self.partition_of(bytes)
    }

    fn partition_of(&self, bytes: impl Iterator<Item = u8>) -> u32 {
        u32::try_from(mixed(fnv1a(bytes)) % u64::from(self.partitions)).unwrap_or(0)
    }

    /// The keys of one channel.
    pub fn channel(&self, topic: &Topic) -> ChannelKeys {
        ChannelKeys { base: self.partition_prefix(self.partition(topic)), name: topic.to_string() }
    }

    /// What is published on for a channel: [`ChannelKeys::topic`], made in one piece since every event needs it.
    pub fn topic(&self, topic: &Topic) -> String {
        let partition = self.partition(topic);
        let mut name =
            String::with_capacity(self.prefix.len() + topic.app.as_str().len() + topic.channel.as_str().len() + 16);
        // Writing to memory cannot fail.
        let _ = write!(name, "{}:{{{partition}}}:c:{}/{}", self.prefix, topic.app.as_str(), topic.channel.as_str());
        name
    }

    /// Set of an app's occupied channels in one partition.
    pub fn occupied(&self, app: &AppId, partition: u32) -> String {
        format!("{}:ch:{app}", self.partition_prefix(partition))
    }

    /// Sorted set of nodes by the end of their lease, in milliseconds of Redis' clock.
    pub fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    /// There for a while after all leases seemed to be over: living nodes renew theirs meanwhile.
    pub fn lease_grace(&self) -> String {
        format!("{}:quiet", self.prefix)
    }

    /// The tombstone of a node: it was declared dead and must take another id.
    pub fn node_tombstone(&self, node: &str) -> String {
        format!("{}:t:{node}", self.prefix)
    }

    /// Sorted set of nodes that were declared dead and whose channels are not all swept, by the time of that.
    pub fn dead(&self) -> String {
        format!("{}:dead", self.prefix)
    }

    /// Set of the channels that a node may hold, as `APP/CHANNEL`.
    pub fn index(&self, node: &str) -> String {
        format!("{}:idx:{node}", self.prefix)
    }

    /// Names the node that sweeps a dead one.
    pub fn sweep_claim(&self, node: &str) -> String {
        format!("{}:sweep:{node}", self.prefix)
    }

    /// Hash of an app's connections, by node.
    pub fn connections(&self, app: &AppId) -> String {
        format!("{}:conn:{app}", self.prefix)
    }

    /// Hash of node to the time of its last report of an app's connections, in milliseconds of Redis' clock.
    pub fn connection_reports(&self, app: &AppId) -> String {
        format!("{}:connat:{app}", self.prefix)
    }

    /// The topic on which gateways are asked to report their connections of an app. A message is the app's id.
    pub fn recount(&self) -> String {
        format!("{}:recount", self.prefix)
    }

    /// The topic that one node probes its own subscription with.
    pub fn probe(&self, node: NodeId) -> String {
        format!("{}:probe:{node}", self.prefix)
    }

    /// The key that a node writes to find out whether the server accepts writes.
    pub fn write_probe(&self, node: NodeId) -> String {
        format!("{}:write:{node}", self.prefix)
    }

    /// Where a session of the HTTP transports is, by its name in their paths.
    pub fn fallback_session(&self, name: &str) -> String {
        format!("{}:hs:{name}", self.partition_prefix(self.fallback_session_partition(name)))
    }

    /// The partition of such a session.
    pub fn fallback_session_partition(&self, name: &str) -> u32 {
        self.partition_of(name.bytes())
    }

    /// Stream of what an app's endpoints are told, with a group for each endpoint.
    pub fn webhook_queue(&self, app: &AppId, partition: u32) -> String {
        format!("{}:wq:{app}", self.partition_prefix(partition))
    }

    /// Stream of what an app's endpoints did not take in time.
    pub fn webhook_dead_letters(&self, app: &AppId, partition: u32) -> String {
        format!("{}:wd:{app}", self.partition_prefix(partition))
    }

    /// Set of the apps with something new in their queues.
    pub fn webhook_ready_apps(&self, partition: u32) -> String {
        format!("{}:wn", self.partition_prefix(partition))
    }

    /// Sorted set of ends that wait for a return, by when they are told.
    pub fn webhook_holds(&self, partition: u32) -> String {
        format!("{}:wh", self.partition_prefix(partition))
    }

    /// Names the sender that sends what waits in a partition.
    pub fn webhook_lease(&self, partition: u32) -> String {
        format!("{}:wl", self.partition_prefix(partition))
    }

    /// What the keys of a partition begin with.
    pub(crate) fn partition_prefix(&self, partition: u32) -> String {
        format!("{}:{{{partition}}}", self.prefix)
    }
}

/// Spreads every bit over all of them. Source: `fmix64` of `MurmurHash3`, which is in the public domain.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

impl ChannelKeys {
    /// What is published on for the channel.
    pub fn topic(&self) -> String {
        self.key("c")
    }

    /// Hash of user id to user info: the member list.
    pub fn members(&self) -> String {
        self.key("pm")
    }

    /// Hash of user id to the nodes that hold it, their ids in a row.
    pub fn holders(&self) -> String {
        self.key("pr")
    }

    /// Hash of epochs and sequences.
    pub fn meta(&self) -> String {
        self.key("m")
    }

    /// Hash of node to its count of subscriptions.
    pub fn occupancy(&self) -> String {
        self.key("oc")
    }

    /// The kept event of a cache channel.
    pub fn kept(&self) -> String {
        self.key("k")
    }

    /// There once a node has been swept from this channel: what it says afterwards is void.
    pub fn tombstone(&self, node: &str) -> String {
        format!("{}:{node}", self.key("t"))
    }

    /// There for a while once it was told that a cache channel has nothing.
    pub fn cache_miss_sent(&self) -> String {
        self.key("wm")
    }

    fn key(&self, kind: &str) -> String {
        format!("{}:{kind}:{}", self.base, self.name)
    }
}

#[cfg(test)]
mod tests;
