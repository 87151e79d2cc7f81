//! The identity of a server as it reports it to a new connection: its role, its mode and its run id.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisError, RedisResult, Value};

use super::command::Command;
use super::error::{Refusal, Verdict};

/// Identifies one process of a Redis server; another one after each restart.
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
    /// Why the server must not be used; `None` for a master, and for a server that says nothing.
    pub(crate) refusal: Option<Refusal>,
    /// Its answer, for the log.
    pub(crate) words: String,
    /// `None` if the user may not run `INFO`.
    pub(crate) run_id: Option<RunId>,
}

impl Identity {
    /// Asks the server, in one round trip.
    ///
    /// Users whose rights do not include `ROLE` or `INFO` are served all the same: `HELLO`, which everyone may run, has the
    /// role and the mode too. Without any of them the server counts as a master until it refuses a write.
    ///
    /// # Errors
    /// When the connection breaks, the server is loading its data, or must not be used.
    pub(crate) async fn ask(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ROLE").cmd("HELLO").cmd("INFO").arg("server");
        Self::ask_with(pipeline, connection).await
    }

    async fn ask_with(mut pipeline: Pipeline, connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let answers: Vec<Value> = pipeline.ignore_errors().query_async(connection).await?;
        // That a command may not be run, or is not known, is fine. That the server refuses all of them is not.
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
        let words = match master {
            Some(master) => format!("role {name} of {master}, mode {mode}"),
            None => format!("role {name}, mode {mode}"),
        };
        let run_id = info.get("run_id").map(|id| id.trim()).filter(|id| !id.is_empty());
        Self { refusal, words, run_id: run_id.map(RunId::from) }
    }
}

/// The role, and of a replica the address of its master.
fn read_role(role: &Value) -> Option<(String, Option<String>)> {
    let Value::Array(parts) = role else { return None };
    let text = |index: usize| String::from_redis_value_ref(parts.get(index)?).ok();
    let name = text(0)?;
    let master = if name == "slave" { text(1).zip(text(2)) } else { None };
    Some((name, master.map(|(host, port)| format!("{host}:{port}"))))
}

/// Asks for the identity without the run id, which does not change while a connection lasts.
pub(crate) struct AskRole;

impl Command<Identity> for AskRole {
    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<Identity> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ROLE").cmd("HELLO");
        Identity::ask_with(pipeline, connection).await
    }
}

#[cfg(test)]
mod tests;
