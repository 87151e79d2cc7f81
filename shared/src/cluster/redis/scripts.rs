//! The Lua scripts. Each changes state and publishes the change in one step, and may be repeated.
//!
//! The head of each file lists its keys and arguments. A script with the flag `allow_oom` keeps or frees state. It also
//! runs while the memory of Redis is full. Redis refuses the other scripts then, before their first command.
//!
//! Lua shares limits, letters and key names with Rust. Each constant is replaced by its value before a script is sent.
//! Arguments would be sent and parsed with every call. Local variables would be captured by every function in every
//! call.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;
use regex::{Captures, Regex};

use super::keys;
use crate::app::WebhookKind;
use crate::cluster::envelope::wire;
use crate::cluster::node::NodeId;
use crate::limits;

/// The status of a script if the node was swept. The node must take a new id.
pub const FENCED: i64 = -2;

/// The status of [`join`] if the channel has as many members as allowed.
pub const FULL: i64 = -1;

/// The field of a channel's subscription counts that exists if the channel publishes its counts. All other fields are
/// node ids.
pub const COUNTS_ANNOUNCED_FIELD: &str = "#";

/// Lua functions on one subject that several scripts use.
#[derive(Clone, Copy)]
struct Part {
    text: &'static str,
    /// The parts that this one uses.
    requires: &'static [Part],
}

macro_rules! part {
    ($name:ident, $file:literal $(, $required:ident)*) => {
        const $name: Part =
            Part { text: include_str!(concat!("scripts/parts/", $file, ".lua")), requires: &[$($required),*] };
    };
}

part!(CLOCK, "clock");
part!(KEY_TYPES, "key_types");
part!(ENVELOPE, "envelope");
part!(POSITIONS, "positions");
part!(COUNTS, "counts");
part!(STREAMS, "streams");
part!(LEASES, "leases", CLOCK);
part!(WEBHOOKS, "webhooks", CLOCK, KEY_TYPES, COUNTS, STREAMS);
part!(MEMBERS, "members", ENVELOPE, POSITIONS, WEBHOOKS);
part!(OCCUPANCY, "occupancy", COUNTS, ENVELOPE, WEBHOOKS);

/// Defines a function for each script: its name, its file, the parts that it uses, and its flag.
///
/// A script is hashed once per process. The client library sends its text if the server does not know the hash: after a
/// restart, a failover or `SCRIPT FLUSH`.
macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident: $file:literal [$($part:ident),*] $($flag:ident)?;)*) => {
        $(
            $(#[$doc])*
            pub fn $name() -> &'static Script {
                static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
                    let body = include_str!(concat!("scripts/", $file, ".lua"));
                    Script::new(&assemble(scripts!(@flag $($flag)?), &[$($part),*], body))
                });
                &SCRIPT
            }
        )*

        /// The parts and the file of every script.
        #[cfg(test)]
        const ALL: &[(&[Part], &str)] =
            &[$((&[$($part),*], include_str!(concat!("scripts/", $file, ".lua")))),*];
    };
    (@flag) => { "#!lua\n" };
    (@flag allow_oom) => { "#!lua flags=allow-oom\n" };
}

scripts! {
    /// Adds a member to a presence channel.
    join: "join" [MEMBERS];
    /// Adds a member again that Redis may have lost.
    rejoin: "join" [MEMBERS] allow_oom;
    /// Removes a member of a node from a presence channel.
    leave: "leave" [MEMBERS] allow_oom;
    /// Sets a node's number of subscriptions to a channel.
    set_subscriptions: "set_subscriptions" [OCCUPANCY];
    /// Sets a number of subscriptions that is 0, or that Redis may have lost.
    resend_subscriptions: "set_subscriptions" [OCCUPANCY] allow_oom;
    /// Renews the time to live of a channel's keys.
    touch: "touch" [] allow_oom;
    /// Removes a dead node from a channel, a limited number of users at a time.
    evict_node: "evict_node" [MEMBERS, OCCUPANCY] allow_oom;

    /// Reports a node's connections of an app, and admits more within the quota.
    claim_connections: "claim_connections" [LEASES] allow_oom;
    /// Counts an app's connections on all nodes.
    count_connections: "count_connections" [LEASES] allow_oom;

    /// Publishes events, at least one of which is cached.
    publish_cached: "publish_cached" [ENVELOPE, POSITIONS];
    /// Publishes client events and appends them to the queues of webhooks.
    publish_client_events: "publish_client_events" [STREAMS];

    /// Renews the lease of a node.
    renew_lease: "renew_lease" [LEASES] allow_oom;
    /// Releases the lease of a node.
    release_lease: "release_lease" [] allow_oom;
    /// Lets other nodes sweep an earlier id of a node.
    release_earlier_id: "release_earlier_id" [] allow_oom;
    /// Adds entries to the index of what a node may have.
    add_to_index: "add_to_index" [] allow_oom;
    /// Declares nodes dead, and lists nodes and leases.
    declare_dead: "declare_dead" [] allow_oom;
    /// Starts or continues the sweep of a dead node.
    begin_sweep: "begin_sweep" [] allow_oom;
    /// Ends the sweep of a dead node.
    end_sweep: "end_sweep" [] allow_oom;

    /// Claims fallback sessions for a gateway.
    claim_sessions: "claim_sessions" [] allow_oom;
    /// Deletes a key, unless another owner has it.
    release_key: "release_key" [] allow_oom;

    /// Acquires or renews a dispatcher's lease of a partition.
    acquire_partition: "acquire_partition" [WEBHOOKS] allow_oom;
    /// Enqueues a cache miss.
    enqueue_cache_miss: "enqueue_cache_miss" [WEBHOOKS];
    /// Reads webhook events for one endpoint.
    read_queue: "read_queue" [CLOCK] allow_oom;
    /// Moves a webhook event to the dead letters.
    dead_letter: "dead_letter" [STREAMS] allow_oom;
    /// Measures the backlog of an app's endpoints.
    backlog: "backlog" [CLOCK, KEY_TYPES] allow_oom;

    /// Writes and deletes a key.
    probe: "probe" [];
}

/// Returns the text of a script: the key functions that it uses, the parts in the order of their requirements, and its
/// file. Constants are replaced by their values.
fn assemble(flag: &str, parts: &[Part], file: &'static str) -> String {
    let body = join_parts(parts, file);
    let used = keys::lua_functions().into_iter().filter(|(name, _)| body.contains(name));
    let functions: String = used.map(|(_, text)| text).collect();
    format!("{flag}{functions}{}", inline_constants(&body))
}

/// Returns the parts in the order of their requirements, and the file.
fn join_parts(parts: &[Part], file: &'static str) -> String {
    let mut texts = Vec::new();
    parts.iter().for_each(|part| require(part, &mut texts));
    texts.push(file);
    texts.join("\n")
}

/// Adds a part after the parts that it requires, unless it was added already.
fn require(part: &Part, texts: &mut Vec<&'static str>) {
    if !texts.contains(&part.text) {
        part.requires.iter().for_each(|required| require(required, texts));
        texts.push(part.text);
    }
}

/// Replaces the names of shared constants by their values.
fn inline_constants(text: &str) -> String {
    let (constants, name) = (constants(), Regex::new(r"\b[A-Z_]+\b").expect("a valid expression"));
    let value = |name: &Captures<'_>| constants.get(&name[0]).cloned().unwrap_or_else(|| name[0].to_owned());
    name.replace_all(text, value).into_owned()
}

/// Returns the constants that Lua shares with Rust: their names and their values in Lua.
fn constants() -> HashMap<&'static str, String> {
    let text = |text: &str| format!("'{text}'");
    let kinds = [
        ("CHANNEL_OCCUPIED", WebhookKind::ChannelOccupied),
        ("CHANNEL_VACATED", WebhookKind::ChannelVacated),
        ("MEMBER_ADDED", WebhookKind::MemberAdded),
        ("MEMBER_REMOVED", WebhookKind::MemberRemoved),
        ("CACHE_MISS", WebhookKind::CacheMiss),
        ("SUBSCRIPTION_COUNT", WebhookKind::SubscriptionCount),
    ];
    let mut all = HashMap::from(kinds.map(|(name, kind)| (name, text(&kind.letter().to_string()))));
    all.extend([
        ("FENCED", FENCED.to_string()),
        ("FULL", FULL.to_string()),
        ("COUNTS_ANNOUNCED_FIELD", text(COUNTS_ANNOUNCED_FIELD)),
        ("ENVELOPE_VERSION", wire::VERSION.to_string()),
        ("NODE_ID_LENGTH", NodeId::LENGTH.to_string()),
        ("CHANNEL_META_TTL_MS", millis(limits::CHANNEL_META_TTL)),
        ("HOLD_MS", millis(limits::WEBHOOK_HOLD)),
        ("DUE_PER_CHANGE_MAX", limits::DUE_PER_CHANGE_MAX.to_string()),
        ("COUNT_IMMEDIATE_MAX", limits::COUNT_IMMEDIATE_MAX.to_string()),
        ("COUNT_INTERVAL_MS", millis(limits::COUNT_INTERVAL)),
        ("QUEUE_MAX", limits::WEBHOOK_QUEUE_MAX.to_string()),
        ("QUEUE_BYTES_MAX", limits::WEBHOOK_QUEUE_BYTES_MAX.to_string()),
        ("QUEUE_TTL_MS", millis(limits::WEBHOOK_QUEUE_TTL)),
        ("QUEUE_ENTRY_BYTES", limits::WEBHOOK_QUEUE_ENTRY_BYTES.to_string()),
        ("QUEUE_CHECK_BYTES", limits::WEBHOOK_QUEUE_CHECK_BYTES.to_string()),
    ]);
    all
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests;
