//! A WebSocket connection of the protocol.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::json;
use shared::app::App;
use shared::auth::{sign_channel, sign_user};
use shared::protocol::{ChannelName, SocketId};

use crate::connection::CONNECT_TIMEOUT;
use crate::error::ClientError;
use crate::message::Message;
use crate::options::Options;
use crate::socket::{Received, Socket};
use crate::url::ServerUrl;

/// How long [`Client::close`] waits for the server.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that has received `pusher:connection_established`.
///
/// Call [`Client::next_message`] regularly: it answers the pings of the server.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    socket_id: SocketId,
    activity_timeout: Duration,
    subprotocol: Option<String>,
    /// Messages that arrived before an expected reply.
    waiting: VecDeque<Message>,
}

impl Client {
    /// Connects and waits for `pusher:connection_established`.
    ///
    /// # Errors
    /// [`ClientError`]. If the server refuses the client, it is [`ClientError::Refused`] with the close code.
    pub async fn connect(url: &ServerUrl, key: &str, options: &Options) -> Result<Self, ClientError> {
        let connecting = async {
            let (mut socket, subprotocol) = Socket::open(url, key, options).await?;
            let (socket_id, activity_timeout) = next_of(&mut socket).await?.established()?;
            Ok(Self { socket, socket_id, activity_timeout, subprotocol, waiting: VecDeque::new() })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| ClientError::Timeout(CONNECT_TIMEOUT))?
    }

    /// Returns the public name of the connection.
    pub fn socket_id(&self) -> SocketId {
        self.socket_id
    }

    /// Returns the time without messages after which the server expects a `pusher:ping`.
    pub fn activity_timeout(&self) -> Duration {
        self.activity_timeout
    }

    /// Returns the `Sec-WebSocket-Protocol` that the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Returns the `Date` header of the handshake response, unparsed.
    pub fn date(&self) -> Option<&str> {
        self.socket.date.as_deref()
    }

    /// Subscribes without a signature. Returns the `subscription_succeeded`.
    ///
    /// # Errors
    /// [`ClientError`]. If the server refuses the subscription, it is [`ClientError::Refused`].
    pub async fn subscribe(&mut self, channel: &str) -> Result<Message, ClientError> {
        self.send_event("pusher:subscribe", &json!({ "channel": channel, "auth": "" })).await?;
        self.subscribed(channel).await
    }

    /// Subscribes with a signature of the app's secret. `channel_data`: the member, for presence channels.
    ///
    /// # Errors
    /// [`ClientError`]. If the server refuses the subscription, it is [`ClientError::Refused`].
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

    /// Unsubscribes from a channel. The server sends no reply.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub async fn unsubscribe(&mut self, channel: &str) -> Result<(), ClientError> {
        self.send_event("pusher:unsubscribe", &json!({ "channel": channel })).await
    }

    /// Signs in with a signature of the app's secret. Returns the `signin_success`.
    ///
    /// # Errors
    /// [`ClientError`]. If the server refuses the sign-in, it is [`ClientError::Refused`].
    pub async fn sign_in(&mut self, app: &App, user_data: &str) -> Result<Message, ClientError> {
        let auth = sign_user(app, self.socket_id, user_data);
        self.send_event("pusher:signin", &json!({ "auth": auth, "user_data": user_data })).await?;
        self.wait_for(|message| message.event == "pusher:signin_success").await
    }

    /// Sends a text message unchanged.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub async fn send(&mut self, text: &str) -> Result<(), ClientError> {
        self.socket.queue_text(text);
        Ok(self.socket.flush().await?)
    }

    /// Returns the next message. Answers `pusher:ping` and does not return it.
    ///
    /// # Errors
    /// [`ClientError`]. At the end of the connection it is [`ClientError::Closed`].
    ///
    /// # Cancel safety
    /// Safe: received data is not lost if the future is dropped.
    pub async fn next_message(&mut self) -> Result<Message, ClientError> {
        match self.waiting.pop_front() {
            Some(message) => Ok(message),
            None => next_of(&mut self.socket).await,
        }
    }

    /// Returns the text of the next message, pings included. Does not return messages that arrived during
    /// [`Client::subscribe`] and [`Client::sign_in`].
    ///
    /// # Errors
    /// [`ClientError`]. At the end of the connection it is [`ClientError::Closed`].
    ///
    /// # Cancel safety
    /// Safe: received data is not lost if the future is dropped.
    pub async fn next_text(&mut self) -> Result<String, ClientError> {
        text_of(&mut self.socket).await
    }

    /// Closes the connection with code 1000 and waits for the server to close it too.
    ///
    /// # Errors
    /// [`ClientError`] if the server does not close the connection.
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

    /// Waits for a reply. Keeps messages that arrive before it for [`Client::next_message`].
    async fn wait_for(&mut self, is_reply: impl Fn(&Message) -> bool) -> Result<Message, ClientError> {
        loop {
            let message = next_of(&mut self.socket).await?;
            if is_reply(&message) {
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
        // The next read sends it.
        socket.queue_text(r#"{"event":"pusher:pong","data":{}}"#);
    }
}
