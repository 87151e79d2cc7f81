//! A client that reads continuously. Messages wait in memory, so only [`crate::Raw`] can be a slow reader.

use client::{Client, ClientError, Message, Options, ServerUrl};
use serde_json::{Value, json};
use shared::app::App;
use shared::auth::{sign_channel, sign_user};
use shared::protocol::{ChannelName, SocketId};
use tokio::sync::mpsc;

use crate::within;

/// A connected client.
pub struct TestClient {
    /// The socket id.
    pub socket_id: SocketId,
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
    app: App,
    outgoing: mpsc::UnboundedSender<String>,
    incoming: mpsc::UnboundedReceiver<Result<Message, ClientError>>,
}

impl TestClient {
    /// Connects.
    ///
    /// # Panics
    /// Panics if the server refuses the connection.
    pub async fn connect(url: &ServerUrl, app: &App, options: &Options) -> Self {
        Self::try_connect(url, app, options).await.expect("the server accepts the client")
    }

    /// Connects, if the server accepts the connection.
    ///
    /// # Errors
    /// Returns an error if the server refuses or is unavailable.
    pub async fn try_connect(url: &ServerUrl, app: &App, options: &Options) -> Result<Self, ClientError> {
        let client = Client::connect(url, app.key.as_str(), options).await?;
        let (outgoing, commands) = mpsc::unbounded_channel();
        let (messages, incoming) = mpsc::unbounded_channel();
        let (socket_id, subprotocol) = (client.socket_id(), client.subprotocol().map(str::to_owned));
        tokio::spawn(pump(client, commands, messages));
        Ok(Self { socket_id, subprotocol, app: app.clone(), outgoing, incoming })
    }

    /// Sends a text unchanged.
    pub fn send(&self, text: impl Into<String>) {
        // The receiving side reports a closed connection.
        let _ = self.outgoing.send(text.into());
    }

    /// Sends an event without a channel, like `pusher:subscribe`.
    pub fn send_event(&self, event: &str, data: &Value) {
        self.send(json!({ "event": event, "data": data }).to_string());
    }

    /// Sends a client event.
    pub fn whisper(&self, channel: &str, event: &str, data: &Value) {
        self.send(json!({ "event": event, "channel": channel, "data": data }).to_string());
    }

    /// Requests a subscription, signed if the kind of the channel requires it. Does not wait for the response.
    pub fn ask(&self, channel: &str, member: Option<&Value>) {
        self.send_event("pusher:subscribe", &self.subscription(channel, member));
    }

    /// Returns the data of a subscription request, signed if the kind of the channel requires it.
    pub fn subscription(&self, channel: &str, member: Option<&Value>) -> Value {
        subscription(&self.app, self.socket_id, channel, member)
    }

    /// Subscribes, signed if the kind of the channel requires it. The next message must be the confirmation.
    pub async fn subscribe(&mut self, channel: &str) {
        self.ask(channel, None);
        let answer = self.expect("pusher_internal:subscription_succeeded").await;
        assert_eq!((answer.channel.as_deref(), answer.data.as_str()), (Some(channel), "{}"));
    }

    /// Joins a presence channel and returns the ids of its members.
    pub async fn join(&mut self, channel: &str, user_id: &str) -> Vec<String> {
        self.ask(channel, Some(&json!({ "user_id": user_id })));
        let answer = self.expect("pusher_internal:subscription_succeeded").await;
        assert_eq!(answer.channel.as_deref(), Some(channel));
        members(&answer)
    }

    /// Unsubscribes from a channel. The server does not respond.
    pub fn unsubscribe(&self, channel: &str) {
        self.send_event("pusher:unsubscribe", &json!({ "channel": channel }));
    }

    /// Requests a sign-in without waiting for the response.
    pub fn request_sign_in(&self, user_data: &Value) {
        let user_data = user_data.to_string();
        let auth = sign_user(&self.app, self.socket_id, &user_data);
        self.send_event("pusher:signin", &json!({ "auth": auth, "user_data": user_data }));
    }

    /// Signs in. The next message must be the confirmation.
    pub async fn sign_in(&mut self, user_data: &Value) {
        self.request_sign_in(user_data);
        let answer = self.expect("pusher:signin_success").await;
        let data: Value = serde_json::from_str(&answer.data).expect("data is an object");
        assert_eq!(data, json!({ "user_data": user_data.to_string() }));
    }

    /// Waits until the server has handled all sent messages. No other message can arrive before.
    pub async fn settle(&mut self) {
        self.send_event("pusher:ping", &json!({}));
        self.expect("pusher:pong").await;
    }

    /// Receives the next message.
    ///
    /// # Panics
    /// Panics if none arrives, or if the connection ends.
    pub async fn next(&mut self) -> Message {
        match within("a message", self.incoming.recv()).await {
            Some(Ok(message)) => message,
            Some(Err(error)) => panic!("expected a message: {error}"),
            None => panic!("expected a message, but the connection is closed"),
        }
    }

    /// Receives the next message without a time limit. Returns `None` after the connection has closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub async fn next_if_any(&mut self) -> Option<Message> {
        self.incoming.recv().await?.ok()
    }

    /// Receives the next message, which must be this event.
    ///
    /// # Panics
    /// Panics if it is different.
    pub async fn expect(&mut self, event: &str) -> Message {
        let message = self.next().await;
        assert_eq!(message.event, event, "{message:?}");
        message
    }

    /// Receives the next message, which must be this event of a channel with this data.
    ///
    /// # Panics
    /// Panics if it is different.
    pub async fn expect_event(&mut self, channel: &str, event: &str, data: &str) {
        let message = self.next().await;
        let seen = (message.channel.as_deref(), message.event.as_str(), message.data.as_str());
        assert_eq!(seen, (Some(channel), event, data));
    }

    /// Receives the next message, which must be a `pusher:error`. Returns its code and text.
    ///
    /// # Panics
    /// Panics if it is different.
    pub async fn expect_error(&mut self) -> (Option<u64>, String) {
        let data = self.expect("pusher:error").await.data;
        let data: Value = serde_json::from_str(&data).expect("an error's data is an object");
        (data["code"].as_u64(), data["message"].as_str().expect("an error has a message").to_owned())
    }

    /// Receives a refused subscription and returns its type and status. Also receives the `pusher:error` with `code` that
    /// belongs to it.
    ///
    /// # Panics
    /// Panics if it is different.
    pub async fn expect_refusal(&mut self, channel: &str, code: u64) -> (String, u64) {
        let refusal = self.expect("pusher:subscription_error").await;
        assert_eq!(refusal.channel.as_deref(), Some(channel));
        let data: Value = serde_json::from_str(&refusal.data).expect("the data is JSON");
        assert_eq!(self.expect_error().await.0, Some(code));
        (data["type"].as_str().expect("a type").to_owned(), data["status"].as_u64().expect("a status"))
    }

    /// Waits for the end of the connection. Only a `pusher:error` and a close frame with the same code can
    /// arrive.
    ///
    /// # Panics
    /// Panics if another message arrives.
    pub async fn expect_close(&mut self, code: u16) {
        assert_eq!(self.expect_error().await.0, Some(u64::from(code)));
        match within("the close", self.incoming.recv()).await {
            Some(Err(ClientError::Closed { code: closed, .. })) => assert_eq!(closed, Some(code)),
            other => panic!("expected a close with {code}, not {other:?}"),
        }
    }
}

/// Returns the data of a subscription request of this socket, signed if the kind of the channel requires it.
///
/// # Panics
/// Panics if the channel's name is not valid.
pub fn subscription(app: &App, socket_id: SocketId, channel: &str, member: Option<&Value>) -> Value {
    let name = ChannelName::parse(channel, usize::MAX).expect("the channel's name is valid");
    let channel_data = member.map(Value::to_string);
    let mut data = json!({ "channel": channel, "auth": "" });
    if name.kind().needs_auth() {
        data["auth"] = sign_channel(app, socket_id, &name, channel_data.as_deref()).into();
    }
    if let Some(channel_data) = channel_data {
        data["channel_data"] = channel_data.into();
    }
    data
}

/// Returns the member ids in a `subscription_succeeded` of a presence channel.
///
/// # Panics
/// Panics if count, ids and hash differ.
pub fn members(succeeded: &Message) -> Vec<String> {
    let data: Value = serde_json::from_str(&succeeded.data).expect("the data is JSON");
    let presence = &data["presence"];
    let ids: Vec<String> = presence["ids"]
        .as_array()
        .expect("ids are a list")
        .iter()
        .map(|id| id.as_str().expect("ids are strings").to_owned())
        .collect();
    let hash = presence["hash"].as_object().expect("hash is an object");
    assert_eq!(presence["count"].as_u64(), Some(ids.len() as u64), "{presence}");
    assert_eq!(hash.len(), ids.len(), "{presence}");
    assert!(ids.iter().all(|id| hash.contains_key(id)), "{presence}");
    ids
}

async fn pump(
    mut client: Client,
    mut commands: mpsc::UnboundedReceiver<String>,
    messages: mpsc::UnboundedSender<Result<Message, ClientError>>,
) {
    loop {
        tokio::select! {
            command = commands.recv() => {
                // The test has dropped the sender of commands. The connection closes with this task.
                let Some(text) = command else { return };
                // The receiving side reports errors.
                let _ = client.send(&text).await;
            }
            message = client.next_message() => {
                let over = message.is_err();
                if messages.send(message).is_err() || over {
                    return;
                }
            }
        }
    }
}
