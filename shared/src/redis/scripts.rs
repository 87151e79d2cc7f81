//! The Lua scripts: each changes state and announces the change in one step, and each may run twice.
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
            static SCRIPT: LazyLock<Script> =
                LazyLock::new(|| Script::new(concat!(include_str!("scripts/announce.lua"), include_str!($file))));
            &SCRIPT
        }
    };
}

script!(
    /// A node holds a first socket of a user.
    join, "scripts/join.lua"
);
script!(
    /// A node holds no socket of a user any more.
    leave, "scripts/leave.lua"
);
script!(
    /// A node's count of subscriptions in a channel.
    occupy, "scripts/occupy.lua"
);
script!(
    /// A node reports an app's connections and claims places for more.
    connect, "scripts/connect.lua"
);
script!(
    /// An app's connections, cluster-wide.
    connections, "scripts/connections.lua"
);
script!(
    /// A node still holds a channel.
    touch, "scripts/touch.lua"
);
script!(
    /// A dead node is taken out of a channel, some users at a time.
    evict, "scripts/evict.lua"
);
script!(
    /// Events of which at least one is kept, published together.
    publish, "scripts/publish.lua"
);
script!(
    /// A node renews its lease.
    heartbeat, "scripts/heartbeat.lua"
);
script!(
    /// Nodes whose lease is over are declared dead.
    claim, "scripts/claim.lua"
);

script!(
    /// A node has sessions of the HTTP transports.
    hold_sessions, "scripts/hold_sessions.lua"
);
script!(
    /// What one of many has is given back, unless it is another's by now.
    give_back, "scripts/give_back.lua"
);

script!(
    /// A sender takes or keeps its lease of a partition's webhooks, and what was held long enough becomes due.
    lead, "scripts/lead.lua"
);
script!(
    /// A cache channel has nothing for a subscriber.
    miss, "scripts/miss.lua"
);
script!(
    /// A sender reads what an endpoint is to be told.
    read, "scripts/read.lua"
);
script!(
    /// An endpoint did not take an entry in time.
    bury, "scripts/bury.lua"
);
script!(
    /// How much waits in a queue of webhooks; what is done with goes.
    backlog, "scripts/backlog.lua"
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
