//! Errors of Redis, sorted by what the caller does about them.

use std::fmt;

use redis::{ErrorKind, RedisError};

/// A command that was not answered, or was answered with an error. It may have run all the same.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No answer came in time.
    #[error("redis did not answer in time")]
    Timeout,
    /// There is no connection.
    #[error("redis cannot be reached")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server must not be used.
    #[error("redis cannot be used: {0}")]
    Refused(Refusal),
    /// The server has just started.
    #[error("redis is loading its data")]
    Loading,
    /// The server answered with an error, or the connection broke.
    #[error("redis refused a command")]
    Command(#[from] RedisError),
    /// The process is ending.
    #[error("the runtime has ended")]
    Ended,
}

impl LinkError {
    /// The error as a metric label.
    pub fn cause_label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect(_) => "connect",
            Self::Refused(_) | Self::Loading => "refused",
            Self::Command(_) if self.is_answer() => "refused",
            Self::Command(_) => "io",
            Self::Ended => "ended",
        }
    }

    /// Whether the connection is not to be used again.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::Timeout | Self::Connect(_) | Self::Loading | Self::Ended => true,
            Self::Refused(refusal) => refusal.ends_connections(),
            Self::Command(error) => Verdict::of(error) == Verdict::Lost,
        }
    }

    /// Whether the server answered this command with an error that says nothing of the server as a whole.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Command(error) if Verdict::of(error).is_answer())
    }
}

/// Why a server that answers must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is a replica, or as read-only as one. Nodes that followed a failover do not receive what is published there.
    Replica,
    /// It is a node of a Redis Cluster.
    ClusterNode,
    /// It is a sentinel.
    Sentinel,
    /// It has fewer replicas than `min-replicas-to-write` demands.
    NoReplicas,
    /// Its memory is full and it evicts nothing.
    OutOfMemory,
    /// It cannot write its file.
    CannotPersist,
    /// It answers a write with an error of another kind.
    WriteFailed,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Replica,
        Self::ClusterNode,
        Self::Sentinel,
        Self::NoReplicas,
        Self::OutOfMemory,
        Self::CannotPersist,
        Self::WriteFailed,
    ];

    /// The refusal as a metric label.
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
                "Make redis.url lead to the master. This node keeps trying, and connects when the address leads there."
            }
            Self::ClusterNode => "Configure a Redis that is not part of a Redis Cluster (cluster-enabled no).",
            Self::Sentinel => "Configure the address of the master, not that of a sentinel.",
            Self::NoReplicas => "Bring replicas back, or lower min-replicas-to-write.",
            Self::OutOfMemory => "Raise maxmemory, or remove what fills it.",
            Self::CannotPersist => "See the log of Redis: its disk may be full (MISCONF).",
            Self::WriteFailed => "Run `carillon doctor` on this node.",
        }
    }

    /// Whether connections to such a server are closed and made again, since the address may lead elsewhere by now.
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
            Self::WriteFailed => "the server answers writes with an error",
        })
    }
}

/// The meaning of an error for the connection that it came on, and for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The connection broke, or the answer did not come in time.
    Lost,
    /// The server must not be used.
    Refused(Refusal),
    /// The server has just started. The connection is given up.
    Loading,
    /// A key holds what no script of ours put there.
    Damaged,
    /// The user may not run the command.
    Forbidden,
    /// Any other answer. It may be of passing nature: managed services answer a failover with a plain `-ERR`.
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
        // Pipelines and transactions have an error for each command; that of the server as a whole counts most.
        let Some(errors) = error.clone().into_server_errors() else { return Self::Unavailable };
        let verdicts = || errors.iter().map(|(_, error)| Self::of_answer(error.code(), error.details()));
        let about_server = verdicts().find(|verdict| matches!(verdict, Self::Refused(_) | Self::Loading));
        let about_key = || verdicts().find(|verdict| *verdict != Self::Unavailable);
        about_server.or_else(about_key).unwrap_or(Self::Unavailable)
    }

    fn of_answer(code: &str, details: Option<&str>) -> Self {
        match code {
            // Only replicas have a master that can be down.
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

    /// Whether it says nothing of the connection or of the server as a whole.
    fn is_answer(self) -> bool {
        matches!(self, Self::Damaged | Self::Forbidden | Self::Unavailable)
    }
}

/// Whether the text of an `-ERR` says that a value cannot be read: as a number by a command, or by one of our scripts.
fn is_about_a_value(details: &str) -> bool {
    const OF_COMMANDS: [&str; 3] = ["is not an integer", "is not a float", "is not a valid float"];
    const OF_SCRIPTS: [&str; 3] = ["attempt to perform arithmetic", "attempt to compare", "attempt to concatenate"];
    let has = |texts: &[&str]| texts.iter().any(|text| details.contains(text));
    has(&OF_COMMANDS) || (details.contains("user_script") && has(&OF_SCRIPTS))
}

/// Whether an answer means that a key holds what no script of ours put there. Repeating the command would not help.
pub(crate) fn is_damage(error: &RedisError) -> bool {
    Verdict::of(error) == Verdict::Damaged
}

#[cfg(test)]
mod tests;
