//! Messages from the server.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::protocol::SocketId;

use crate::error::ClientError;

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The name of the event.
    pub event: String,
    /// The channel of the event, if any.
    pub channel: Option<String>,
    /// The content of a string, or the JSON of another value. Empty without data.
    pub data: String,
    /// The user that sent a client event on a presence channel.
    pub user_id: Option<String>,
}

impl Message {
    /// Parses a message.
    ///
    /// # Errors
    /// [`ClientError::Protocol`].
    pub fn read(text: &str) -> Result<Self, ClientError> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            event: String,
            channel: Option<String>,
            #[serde(borrow)]
            data: Option<&'a RawValue>,
            user_id: Option<String>,
        }
        let wire: Wire<'_> = serde_json::from_str(text)
            .map_err(|error| ClientError::Protocol(format!("{error} in the message {text:?}")))?;
        let data = wire.data.map(RawValue::get).unwrap_or_default();
        let data = serde_json::from_str::<String>(data).unwrap_or_else(|_| data.to_owned());
        Ok(Self { event: wire.event, channel: wire.channel, data, user_id: wire.user_id })
    }

    /// Returns the error in a `pusher:error` or `pusher:subscription_error`.
    pub fn refusal(&self) -> Option<ClientError> {
        #[derive(Default, Deserialize)]
        struct Error {
            #[serde(default)]
            code: Option<u16>,
            #[serde(default, alias = "error")]
            message: String,
            #[serde(default)]
            status: Option<u16>,
        }
        if !matches!(self.event.as_str(), "pusher:error" | "pusher:subscription_error") {
            return None;
        }
        let error: Error = serde_json::from_str(&self.data).unwrap_or_default();
        Some(ClientError::Refused { code: error.code.or(error.status), message: error.message })
    }

    /// Parses the socket id and the activity timeout of `pusher:connection_established`.
    pub(crate) fn established(&self) -> Result<(SocketId, Duration), ClientError> {
        #[derive(Deserialize)]
        struct Data {
            socket_id: String,
            activity_timeout: u64,
        }
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        if self.event != "pusher:connection_established" {
            return Err(ClientError::Protocol(format!("its first message was {:?}", self.event)));
        }
        let data: Data = serde_json::from_str(&self.data).map_err(|error| ClientError::Protocol(error.to_string()))?;
        let socket_id = data.socket_id.parse().map_err(|error| ClientError::Protocol(format!("{error}")))?;
        Ok((socket_id, Duration::from_secs(data.activity_timeout)))
    }
}
