//! The values that can be sent to Redis as commands.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, ScriptInvocation};

/// A command whose reply is a `T`: a single command, a pipeline or the call of a script.
pub trait Command<T>: Send + Sync {
    /// Sends the command and returns the reply.
    ///
    /// # Errors
    /// [`redis::RedisError`] if the connection fails, the server replies with an error, or the reply is not a `T`.
    fn send(&self, connection: &mut MultiplexedConnection) -> impl Future<Output = RedisResult<T>> + Send;
}

impl<T: FromRedisValue> Command<T> for Cmd {
    fn send(&self, connection: &mut MultiplexedConnection) -> impl Future<Output = RedisResult<T>> + Send {
        self.query_async(connection)
    }
}

impl<T: FromRedisValue> Command<T> for Pipeline {
    fn send(&self, connection: &mut MultiplexedConnection) -> impl Future<Output = RedisResult<T>> + Send {
        self.query_async(connection)
    }
}

/// If the server does not know the script, the script is loaded and called again.
impl<T: FromRedisValue + Send> Command<T> for ScriptInvocation<'_> {
    fn send(&self, connection: &mut MultiplexedConnection) -> impl Future<Output = RedisResult<T>> + Send {
        self.invoke_async(connection)
    }
}
