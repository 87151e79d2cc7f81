//! Errors of Redis, classified by how the caller handles them.

use std::fmt;

use redis::{ErrorKind, RedisError};

/// The error of a command. The server may have run the command nevertheless.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The server did not reply in time.
    #[error("redis did not reply in time")]
    Timeout,
    /// The connection cannot be made.
    #[error("redis cannot be reached")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server must not be used.
    #[error("redis cannot be used: {0}")]
    Refused(Refusal),
    /// The server is loading its data after a start.
    #[error("redis is loading its data")]
    Loading,
    /// The server replied with an error, or the connection failed.
    #[error("redis command failed")]
    Command(#[from] RedisError),
    /// The runtime has shut down.
    #[error("the runtime has ended")]
    Ended,
}

impl LinkError {
    /// Returns the metric label.
    pub fn cause_label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect(_) => "connect",
            Self::Refused(_) | Self::Loading => "refused",
            Self::Command(_) if self.is_command_error() => "refused",
            Self::Command(_) => "io",
            Self::Ended => "ended",
        }
    }

    /// Whether the connection must not be used again.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::Timeout | Self::Connect(_) | Self::Loading | Self::Ended => true,
            Self::Refused(refusal) => refusal.ends_connections(),
            Self::Command(error) => Verdict::of(error) == Verdict::Lost,
        }
    }

    /// Whether the server replied with an error that concerns only this command.
    pub fn is_command_error(&self) -> bool {
        matches!(self, Self::Command(error) if Verdict::of(error).is_command_error())
    }
}

/// The reason why a reachable server must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The server is a replica or read-only. Nodes that followed a failover do not receive its events.
    Replica,
    /// The server is a node of a Redis Cluster.
    ClusterNode,
    /// The server is a sentinel.
    Sentinel,
    /// The server has fewer replicas than `min-replicas-to-write`.
    NoReplicas,
    /// The memory of the server is full, and it does not evict keys.
    OutOfMemory,
    /// The server cannot write its data to disk.
    CannotPersist,
    /// The server rejects writes for another reason.
    WriteFailed,
}

impl Refusal {
    /// All refusals.
    pub const ALL: [Self; 7] = [
        Self::Replica,
        Self::ClusterNode,
        Self::Sentinel,
        Self::NoReplicas,
        Self::OutOfMemory,
        Self::CannotPersist,
        Self::WriteFailed,
    ];

    /// Returns the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::ClusterNode => "cluster_node",
            Self::Sentinel => "sentinel",
            Self::NoReplicas => "no_replicas",
            Self::OutOfMemory => "out_of_memory",
            Self::CannotPersist => "cannot_persist",
            Self::WriteFailed => "write_failed",
        }
    }

    /// Returns the advice for the operator.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Replica => {
                "Set redis.url to the address of the master. This node retries, and connects when the address leads to \
                 the master."
            }
            Self::ClusterNode => "Use a Redis server that is not part of a Redis Cluster (cluster-enabled no).",
            Self::Sentinel => "Set redis.url to the address of the master, not of a sentinel.",
            Self::NoReplicas => "Restore replicas, or lower min-replicas-to-write.",
            Self::OutOfMemory => "Raise maxmemory, or delete data.",
            Self::CannotPersist => "See the log of Redis; its disk may be full (MISCONF).",
            Self::WriteFailed => "Run `carillon doctor` on this node.",
        }
    }

    /// Whether connections to such a server are closed, because the address may now lead to another server.
    pub fn ends_connections(self) -> bool {
        match self {
            Self::Replica | Self::ClusterNode | Self::Sentinel | Self::NoReplicas => true,
            Self::OutOfMemory | Self::CannotPersist | Self::WriteFailed => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Replica => "the server is a replica or read-only",
            Self::ClusterNode => "the server is a node of a Redis Cluster",
            Self::Sentinel => "the server is a sentinel",
            Self::NoReplicas => "the server has too few replicas to accept writes",
            Self::OutOfMemory => "the memory of the server is full",
            Self::CannotPersist => "the server cannot save its data",
            Self::WriteFailed => "the server rejects writes with an error",
        })
    }
}

/// The classification of an error, by its effect on the connection and on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The connection failed, or the reply timed out.
    Lost,
    /// The server must not be used.
    Refused(Refusal),
    /// The server is loading its data. The connection is closed.
    Loading,
    /// A key holds a value of an unexpected type.
    Damaged,
    /// The user has no permission for the command.
    Forbidden,
    /// Any other error reply. It may be temporary: managed services return a plain `-ERR` during a failover.
    Unavailable,
}

impl Verdict {
    pub(crate) fn of(error: &RedisError) -> Self {
        if error.is_io_error() || error.is_connection_dropped() || error.is_timeout() {
            return Self::Lost;
        }
        if matches!(error.kind(), ErrorKind::UnexpectedReturnType | ErrorKind::Parse) {
            return Self::Damaged;
        }
        // Pipelines and transactions return an error for each command. An error about the server takes precedence.
        let Some(errors) = error.clone().into_server_errors() else { return Self::Unavailable };
        let verdicts = || errors.iter().map(|(_, error)| Self::of_reply(error.code(), error.details()));
        let about_server = verdicts().find(|verdict| matches!(verdict, Self::Refused(_) | Self::Loading));
        let about_key = || verdicts().find(|verdict| *verdict != Self::Unavailable);
        about_server.or_else(about_key).unwrap_or(Self::Unavailable)
    }

    fn of_reply(code: &str, details: Option<&str>) -> Self {
        match code {
            // Only replicas return MASTERDOWN.
            "READONLY" | "MASTERDOWN" => Self::Refused(Refusal::Replica),
            "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" => Self::Refused(Refusal::ClusterNode),
            "NOREPLICAS" => Self::Refused(Refusal::NoReplicas),
            "OOM" => Self::Refused(Refusal::OutOfMemory),
            "MISCONF" => Self::Refused(Refusal::CannotPersist),
            "LOADING" => Self::Loading,
            "NOPERM" => Self::Forbidden,
            "WRONGTYPE" => Self::Damaged,
            "ERR" if details.is_some_and(is_about_a_value) => Self::Damaged,
            _ => Self::Unavailable,
        }
    }

    /// Whether the error concerns neither the connection nor the server as a whole.
    fn is_command_error(self) -> bool {
        matches!(self, Self::Damaged | Self::Forbidden | Self::Unavailable)
    }
}

/// Whether an `-ERR` reports a value of an unexpected type: to a command that needs a number, or to a Carillon script.
fn is_about_a_value(details: &str) -> bool {
    const OF_COMMANDS: [&str; 3] = ["is not an integer", "is not a float", "is not a valid float"];
    const OF_SCRIPTS: [&str; 3] = ["attempt to perform arithmetic", "attempt to compare", "attempt to concatenate"];
    let has = |texts: &[&str]| texts.iter().any(|text| details.contains(text));
    has(&OF_COMMANDS) || (details.contains("user_script") && has(&OF_SCRIPTS))
}

/// Whether an error means that a key holds a value of an unexpected type. A retry does not help.
pub(crate) fn is_damage(error: &RedisError) -> bool {
    Verdict::of(error) == Verdict::Damaged
}

#[cfg(test)]
mod tests;
