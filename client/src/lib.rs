//! A small client of the Pusher Channels protocol: the WebSocket side, and the signed requests of the HTTP API.
//!
//! Used by `carillon trigger` and `carillon listen` and by the tests. It never reconnects, does not support the HTTP
//! fallback, and leaves all timeouts to the caller.

mod api;
mod socket;
pub mod tls;
mod url;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use shared::app::App;
use shared::auth::{sign_channel, sign_user};
use shared::protocol::{ChannelName, ChannelNameError, SocketId};
pub use shared::serve::tls::trust::Trust;

use socket::{Received, Socket};

pub use api::{ApiClient, Reply};
pub use url::{ServerUrl, UrlError};

/// A server that does not answer the handshake in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection, from its `pusher:connection_established` on.
///
/// Someone must be in [`Client::next_message`] now and then: there pings are answered.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    socket_id: SocketId,
    activity_timeout: Duration,
    subprotocol: Option<String>,
    /// Messages that arrived while another was waited for.
    waiting: VecDeque<Message>,
}

/// How a connection is opened; the defaults are what pusher-js does outside of a browser.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `protocol` parameter; `None` leaves it out.
    pub protocol: Option<String>,
    /// The `Origin` header.
    pub origin: Option<String>,
    /// The `Sec-WebSocket-Protocol` header.
    pub subprotocol: Option<String>,
    /// Whom to believe that the server is who it should be, where it speaks TLS.
    pub trust: Trust,
    /// Largest message taken from the server, in bytes.
    pub message_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            protocol: Some("7".into()),
            origin: None,
            subprotocol: None,
            trust: Trust::default(),
            // A presence channel of 10,000 members with 1 KiB each, escapes included, is the largest thing a server says.
            message_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// One message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Event name.
    pub event: String,
    /// The channel it belongs to, if any.
    pub channel: Option<String>,
    /// What a string holds, or any other JSON as it came; empty when there was none.
    pub data: String,
    /// The sender, on client events of presence channels.
    pub user_id: Option<String>,
}

/// Why the server could not be talked to, or what it said instead.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection came about.
    #[error("cannot connect to {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The two do not speak the same TLS, or the server is not who it should be.
    #[error("cannot agree on TLS with {address}")]
    Tls {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The server did not answer in time.
    #[error("no answer from the server within {0:?}")]
    Timeout(Duration),
    /// HTTP itself failed.
    #[error("the HTTP exchange failed")]
    Http(#[from] hyper::Error),
    /// The request cannot be written down.
    #[error("the request is not valid")]
    Request(#[from] hyper::http::Error),
    /// The upgrade to a WebSocket was answered with another status.
    #[error("the server answered {status} instead of opening a WebSocket: {text}")]
    NotUpgraded {
        /// The status.
        status: hyper::StatusCode,
        /// The body.
        text: String,
    },
    /// The server refused what was asked, in a `pusher:error` or a `pusher:subscription_error`.
    #[error("the server refused: {message}{}", in_parentheses(*code))]
    Refused {
        /// A number from the close code ranges, if it gave one.
        code: Option<u16>,
        /// Its words.
        message: String,
    },
    /// The server closed the connection.
    #[error("the server closed the connection: {reason}{}", in_parentheses(*code))]
    Closed {
        /// The code of its close frame; `None` when there was no frame, or none in it.
        code: Option<u16>,
        /// Its words.
        reason: String,
    },
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// A channel that nobody can sign for.
    #[error(transparent)]
    Channel(#[from] ChannelNameError),
}

fn in_parentheses(code: Option<u16>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}

impl Client {
    /// Connects and waits for `pusher:connection_established`.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] with the close code when the server does not want this client.
    pub async fn connect(url: &ServerUrl, key: &str, options: &Options) -> Result<Self, ClientError> {
        let connecting = async {
            let (mut socket, subprotocol) = Socket::open(url, key, options).await?;
            let (socket_id, activity_timeout) = established(&next_of(&mut socket).await?)?;
            Ok(Self { socket, socket_id, activity_timeout, subprotocol, waiting: VecDeque::new() })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| ClientError::Timeout(CONNECT_TIMEOUT))?
    }

    /// The connection's public name.
    pub fn socket_id(&self) -> SocketId {
        self.socket_id
    }

    /// After this time of silence the server wants a `pusher:ping`.
    pub fn activity_timeout(&self) -> Duration {
        self.activity_timeout
    }

    /// The `Sec-WebSocket-Protocol` that the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The `Date` of the server's answer to the handshake, as it came.
    pub fn date(&self) -> Option<&str> {
        self.socket.date.as_deref()
    }

    /// Subscribes without a signature; answers with the `subscription_succeeded`.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when the server does.
    pub async fn subscribe(&mut self, channel: &str) -> Result<Message, ClientError> {
        self.send_event("pusher:subscribe", &json!({ "channel": channel, "auth": "" })).await?;
        self.subscribed(channel).await
    }

    /// Subscribes with a signature made here with the app's secret. `channel_data`: who joins, on presence channels.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when the server does.
    pub async fn subscribe_signed(
        &mut self,
        app: &App,
        channel: &str,
        channel_data: Option<&str>,
    ) -> Result<Message, ClientError> {
        let name = ChannelName::parse(channel, usize::MAX)?;
        let auth = sign_channel(app, self.socket_id, &name, channel_data);
        let data = match channel_data {
            Some(channel_data) => json!({ "channel": channel, "auth": auth, "channel_data": channel_data }),
            None => json!({ "channel": channel, "auth": auth }),
        };
        self.send_event("pusher:subscribe", &data).await?;
        self.subscribed(channel).await
    }

    /// Leaves a channel; the server does not answer.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub async fn unsubscribe(&mut self, channel: &str) -> Result<(), ClientError> {
        self.send_event("pusher:unsubscribe", &json!({ "channel": channel })).await
    }

    /// Signs in with `user_data`, signed here with the app's secret; answers with the `signin_success`.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] when the server does.
    pub async fn sign_in(&mut self, app: &App, user_data: &str) -> Result<Message, ClientError> {
        let auth = sign_user(app, self.socket_id, user_data);
        self.send_event("pusher:signin", &json!({ "auth": auth, "user_data": user_data })).await?;
        self.wait_for(|message| message.event == "pusher:signin_success").await
    }

    /// Sends one text, as it is.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub async fn send(&mut self, text: &str) -> Result<(), ClientError> {
        self.socket.queue_text(text);
        Ok(self.socket.flush().await?)
    }

    /// The next message but for `pusher:ping`, which is answered.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Closed`] at the end.
    ///
    /// # Cancel safety
    /// Safe: nothing that arrived is lost when the future is dropped.
    pub async fn next_message(&mut self) -> Result<Message, ClientError> {
        match self.waiting.pop_front() {
            Some(message) => Ok(message),
            None => next_of(&mut self.socket).await,
        }
    }

    /// The next message as it came, pings included; for those who count or compare bytes. Messages that arrived during
    /// [`Client::subscribe`] and [`Client::sign_in`] are not among them.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Closed`] at the end.
    ///
    /// # Cancel safety
    /// Safe: nothing that arrived is lost when the future is dropped.
    pub async fn next_text(&mut self) -> Result<String, ClientError> {
        text_of(&mut self.socket).await
    }

    /// Closes with 1000 and waits for the server to do the same.
    ///
    /// # Errors
    /// [`ClientError`], when the server does not answer the close.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.socket.queue_close();
        let closed = async {
            loop {
                match text_of(&mut self.socket).await {
                    Ok(_) => {}
                    Err(ClientError::Closed { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::time::timeout(CLOSE_TIMEOUT, closed).await.map_err(|_| ClientError::Timeout(CLOSE_TIMEOUT))?
    }

    async fn send_event(&mut self, event: &str, data: &serde_json::Value) -> Result<(), ClientError> {
        self.send(&json!({ "event": event, "data": data }).to_string()).await
    }

    async fn subscribed(&mut self, channel: &str) -> Result<Message, ClientError> {
        self.wait_for(|message| {
            message.event == "pusher_internal:subscription_succeeded" && message.channel.as_deref() == Some(channel)
        })
        .await
    }

    /// Waits for an answer; what else arrives before it is kept for [`Client::next_message`].
    async fn wait_for(&mut self, is_answer: impl Fn(&Message) -> bool) -> Result<Message, ClientError> {
        loop {
            let message = next_of(&mut self.socket).await?;
            if is_answer(&message) {
                return Ok(message);
            }
            match message.refusal() {
                Some(refusal) => return Err(refusal),
                None => self.waiting.push_back(message),
            }
        }
    }
}

async fn text_of(socket: &mut Socket) -> Result<String, ClientError> {
    match socket.receive().await? {
        Received::Text(text) => Ok(text),
        Received::Close { code, reason } => Err(ClientError::Closed { code, reason }),
    }
}

async fn next_of(socket: &mut Socket) -> Result<Message, ClientError> {
    loop {
        let message = Message::read(&text_of(socket).await?)?;
        if message.event != "pusher:ping" {
            return Ok(message);
        }
        // Goes out ahead of the next read.
        socket.queue_text(r#"{"event":"pusher:pong","data":{}}"#);
    }
}

impl Message {
    /// Reads one message.
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

    /// The refusal that this message is, if it is one.
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
}

/// Reads `pusher:connection_established`: the connection's name and its activity timeout.
fn established(message: &Message) -> Result<(SocketId, Duration), ClientError> {
    #[derive(Deserialize)]
    struct Data {
        socket_id: String,
        activity_timeout: u64,
    }
    if let Some(refusal) = message.refusal() {
        return Err(refusal);
    }
    if message.event != "pusher:connection_established" {
        return Err(ClientError::Protocol(format!("its first message was {:?}", message.event)));
    }
    let data: Data = serde_json::from_str(&message.data).map_err(|error| ClientError::Protocol(error.to_string()))?;
    let socket_id = data.socket_id.parse().map_err(|error| ClientError::Protocol(format!("{error}")))?;
    Ok((socket_id, Duration::from_secs(data.activity_timeout)))
}

#[cfg(test)]
mod tests;
