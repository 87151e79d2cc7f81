//! The identity of a Redis server: its role, its mode and its run id.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisError, RedisResult, Value};

use super::command::Command;
use super::error::{Refusal, Verdict};

/// The id of one process of a Redis server. It changes with every restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunId(Box<str>);

impl From<&str> for RunId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

/// The identity of the server at the other end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The reason why the server must not be used. `None` for a master, and if the role is unknown.
    pub(crate) refusal: Option<Refusal>,
    /// The role and the mode, for the log.
    pub(crate) description: String,
    /// The run id. `None` if the user has no permission for `INFO`.
    pub(crate) run_id: Option<RunId>,
}

impl Identity {
    /// Queries the identity in one round trip.
    ///
    /// The user may lack the permission for `ROLE` or `INFO`. `HELLO` needs none and has the role and the mode too. A
    /// server that returns neither counts as a master until it rejects a write.
    ///
    /// # Errors
    /// If the connection fails, or if the server is loading its data or must not be used.
    pub(crate) async fn query(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ROLE").cmd("HELLO").cmd("INFO").arg("server");
        Self::query_with(pipeline, connection).await
    }

    async fn query_with(mut pipeline: Pipeline, connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let answers: Vec<Value> = pipeline.ignore_errors().query_async(connection).await?;
        // An unknown or forbidden command is ignored. An error about the server as a whole is returned.
        let errors = answers.iter().filter_map(|answer| match answer {
            Value::ServerError(error) => Some(RedisError::from(error.clone())),
            _ => None,
        });
        let of_server = |error: &RedisError| matches!(Verdict::of(error), Verdict::Refused(_) | Verdict::Loading);
        if let Some(error) = errors.into_iter().find(of_server) {
            return Err(error);
        }
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or(Value::Nil);
        let (role, hello, info) = (next(), next(), next());
        Ok(Self::read(&role, &hello, &info))
    }

    fn read(role: &Value, hello: &Value, info: &Value) -> Self {
        let hello = HashMap::<String, Value>::from_redis_value_ref(hello).unwrap_or_default();
        let field = |name: &str| hello.get(name).and_then(|value| String::from_redis_value_ref(value).ok());
        let info = String::from_redis_value_ref(info).unwrap_or_default();
        let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
        let mode = field("mode").or_else(|| info.get("redis_mode").map(|mode| (*mode).to_owned())).unwrap_or_default();
        let (name, master) = read_role(role).or_else(|| Some((field("role")?, None))).unwrap_or_default();
        let refusal = match (name.as_str(), mode.as_str()) {
            ("sentinel", _) | (_, "sentinel") => Some(Refusal::Sentinel),
            (_, "cluster") => Some(Refusal::ClusterNode),
            ("slave" | "replica", _) => Some(Refusal::Replica),
            _ => None,
        };
        let description = match master {
            Some(master) => format!("role {name} of {master}, mode {mode}"),
            None => format!("role {name}, mode {mode}"),
        };
        let run_id = info.get("run_id").map(|id| id.trim()).filter(|id| !id.is_empty());
        Self { refusal, description, run_id: run_id.map(RunId::from) }
    }
}

/// Returns the role, and the address of the master for a replica.
fn read_role(role: &Value) -> Option<(String, Option<String>)> {
    let Value::Array(parts) = role else { return None };
    let text = |index: usize| String::from_redis_value_ref(parts.get(index)?).ok();
    let name = text(0)?;
    let master = if name == "slave" { text(1).zip(text(2)) } else { None };
    Some((name, master.map(|(host, port)| format!("{host}:{port}"))))
}

/// The query of an identity without the run id, which is constant for a connection.
pub(crate) struct RoleQuery;

impl Command<Identity> for RoleQuery {
    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<Identity> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ROLE").cmd("HELLO");
        Identity::query_with(pipeline, connection).await
    }
}

#[cfg(test)]
mod tests;
