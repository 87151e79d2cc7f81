//! The Lua scripts: each changes state and announces the change in one step, and each may run twice.
//!
//! A Redis whose memory is full refuses a script before its first command, unless the script is marked `allow_oom`: those
//! keep or free state. (A script without a first line `#!lua` would be refused or not by its first writing command.)
//!
//! Their numbers of keys and arguments are checked where they are called; what they mean stands at the head of each file.

use std::sync::LazyLock;

use redis::Script;

// A script is hashed once per process. It is sent to a server that does not know its hash, when that server says so
// (`NOSCRIPT`): after a restart, a failover or `SCRIPT FLUSH`.
macro_rules! script {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        pub fn $name() -> &'static Script {
            static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
                Script::new(concat!("#!lua\n", include_str!("scripts/announce.lua"), include_str!($file)))
            });
            &SCRIPT
        }
    };
    ($(#[$doc:meta])* $name:ident, $file:literal, allow_oom) => {
        $(#[$doc])*
        pub fn $name() -> &'static Script {
            static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
                Script::new(concat!(
                    "#!lua flags=allow-oom\n",
                    include_str!("scripts/announce.lua"),
                    include_str!($file)
                ))
            });
            &SCRIPT
        }
    };
}

script!(
    /// A node holds a first socket of a user.
    join, "scripts/join.lua"
);
script!(
    /// A node joins again for a user that Redis may have lost.
    rejoin, "scripts/join.lua", allow_oom
);
script!(
    /// A node holds no socket of a user any more.
    leave, "scripts/leave.lua", allow_oom
);
script!(
    /// A node's count of subscriptions in a channel.
    set_subscriptions, "scripts/set_subscriptions.lua"
);
script!(
    /// A node reports an app's connections and claims places for more.
    claim_connections, "scripts/claim_connections.lua", allow_oom
);
script!(
    /// An app's connections, cluster-wide.
    count_connections, "scripts/count_connections.lua", allow_oom
);
script!(
    /// The same for a count that is 0, or that Redis may have lost.
    resend_subscriptions, "scripts/set_subscriptions.lua", allow_oom
);
script!(
    /// A node still holds a channel.
    touch, "scripts/touch.lua", allow_oom
);
script!(
    /// A dead node is taken out of a channel, some users at a time.
    evict_node, "scripts/evict_node.lua", allow_oom
);
script!(
    /// Events of which at least one is kept, published together.
    publish_cached, "scripts/publish_cached.lua"
);
script!(
    /// Client events that go to webhooks too.
    publish_client_events, "scripts/publish_client_events.lua"
);
script!(
    /// A node renews its lease.
    renew_lease, "scripts/renew_lease.lua", allow_oom
);
script!(
    /// A node gives up its lease.
    release_lease, "scripts/release_lease.lua", allow_oom
);
script!(
    /// A node gives up an earlier identity.
    release_earlier_id, "scripts/release_earlier_id.lua", allow_oom
);
script!(
    /// A node notes what it may hold.
    add_to_index, "scripts/add_to_index.lua", allow_oom
);
script!(
    /// A sweeper claims a dead node, or renews its claim.
    begin_sweep, "scripts/begin_sweep.lua", allow_oom
);
script!(
    /// A sweeper has finished a dead node.
    end_sweep, "scripts/end_sweep.lua", allow_oom
);
script!(
    /// Lists nodes and leases, and declares nodes dead.
    declare_dead, "scripts/declare_dead.lua", allow_oom
);

script!(
    /// A node has sessions of the HTTP transports.
    claim_sessions, "scripts/claim_sessions.lua", allow_oom
);
script!(
    /// What one of many has is given back, unless it is another's by now.
    release_key, "scripts/release_key.lua", allow_oom
);

script!(
    /// A sender takes or keeps its lease of a partition's webhooks, and what was held long enough becomes due.
    acquire_partition, "scripts/acquire_partition.lua", allow_oom
);
script!(
    /// A cache channel has nothing for a subscriber.
    enqueue_cache_miss, "scripts/enqueue_cache_miss.lua"
);
script!(
    /// A sender reads what an endpoint is to be told.
    read_queue, "scripts/read_queue.lua", allow_oom
);
script!(
    /// An endpoint did not take an entry in time.
    dead_letter, "scripts/dead_letter.lua", allow_oom
);
script!(
    /// How much waits in a queue of webhooks; what is done with goes.
    backlog, "scripts/backlog.lua", allow_oom
);

script!(
    /// The probe finds out whether the server accepts writes.
    probe, "scripts/probe.lua"
);

/// What a script returns to a node that has been swept: it must take a new id.
pub const FENCED: i64 = -2;

/// What [`join`] returns when the channel is full.
pub const FULL: i64 = -1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_hashed_once() {
        assert!(std::ptr::eq(join(), join()));
        assert_ne!(join().get_hash(), leave().get_hash());
    }
}
