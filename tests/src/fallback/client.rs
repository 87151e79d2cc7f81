//! A client that uses the HTTP transports like pusher-js and reads continuously.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};
use shared::auth::{sign_channel, sign_user};
use shared::protocol::{ChannelName, SocketId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{HttpSession, Line, Transport};
use crate::{Server, within};

/// A connected client. It aborts its request when it is dropped.
pub struct HttpClient {
    /// The socket id.
    pub socket_id: SocketId,
    /// The session.
    pub session: Arc<HttpSession>,
    lines: mpsc::UnboundedReceiver<Line>,
    waiting: VecDeque<Value>,
    /// The number of heartbeats.
    pub heartbeats: usize,
    pump: JoinHandle<()>,
}

impl HttpClient {
    /// Connects.
    ///
    /// # Panics
    /// Panics if the server refuses the session.
    pub async fn connect(server: &Server, transport: Transport) -> Self {
        Self::with(HttpSession::new(server), transport).await
    }

    /// Connects with this session.
    ///
    /// # Panics
    /// Panics if the server refuses the session.
    pub async fn with(session: HttpSession, transport: Transport) -> Self {
        let session = Arc::new(session);
        let (sender, mut lines) = mpsc::unbounded_channel();
        let pump = tokio::spawn(pump(session.clone(), transport, sender));
        assert_eq!(within("o", lines.recv()).await, Some(Line::Open));
        let mut client = Self {
            socket_id: "1.1".parse().expect("a socket id"),
            session,
            lines,
            waiting: VecDeque::new(),
            heartbeats: 0,
            pump,
        };
        let established = client.expect("pusher:connection_established").await;
        let data = established["data"].as_str().expect("data is a string");
        let data: Value = serde_json::from_str(data).expect("data is JSON");
        client.socket_id = data["socket_id"].as_str().and_then(|id| id.parse().ok()).expect("a socket id");
        client
    }

    /// Reads the next line that is neither a heartbeat nor empty, or the next message of such a line.
    async fn advance(&mut self) -> Option<Line> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Some(Line::Messages(vec![message]));
            }
            match within("a line", self.lines.recv()).await? {
                Line::Messages(messages) => self.waiting.extend(messages),
                Line::Heartbeat => self.heartbeats += 1,
                line => return Some(line),
            }
        }
    }

    /// Receives the next message.
    ///
    /// # Panics
    /// Panics if another line arrives, or if the session ends.
    pub async fn next(&mut self) -> Value {
        match self.advance().await {
            Some(Line::Messages(mut messages)) => messages.remove(0),
            other => panic!("expected a message, not {other:?}"),
        }
    }

    /// Receives the next message, which must be this event.
    ///
    /// # Panics
    /// Panics if it is different.
    pub async fn expect(&mut self, event: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["event"], event, "{message}");
        message
    }

    /// Receives the next message, which must be this event of a channel with this data.
    ///
    /// # Panics
    /// Panics if it is different.
    pub async fn expect_event(&mut self, channel: &str, event: &str, data: &str) {
        let message = self.next().await;
        let seen = (&message["channel"], &message["event"], &message["data"]);
        assert_eq!(seen, (&channel.into(), &event.into(), &data.into()));
    }

    /// Receives the announced end of the session.
    ///
    /// # Panics
    /// Panics if anything else arrives.
    pub async fn expect_close(&mut self, code: u16) {
        assert_eq!(self.expect("pusher:error").await["data"]["code"], code);
        match self.advance().await {
            Some(Line::Close(closed, _)) => assert_eq!(closed, code),
            other => panic!("expected c[{code},…], not {other:?}"),
        }
    }

    /// Receives the end of a session that the server does not know.
    ///
    /// # Panics
    /// Panics if anything else arrives.
    pub async fn expect_loss(&mut self) {
        assert_eq!(self.advance().await, Some(Line::Open));
    }

    /// Requests a subscription, signed if the kind of the channel requires it.
    pub async fn ask(&self, channel: &str, member: Option<&Value>) {
        let name = ChannelName::parse(channel, usize::MAX).expect("the channel's name is valid");
        let channel_data = member.map(Value::to_string);
        let mut data = json!({ "channel": channel, "auth": "" });
        if name.kind().needs_auth() {
            data["auth"] = sign_channel(&self.session.app, self.socket_id, &name, channel_data.as_deref()).into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        self.session.send_event("pusher:subscribe", &data).await;
    }

    /// Subscribes and returns the data of the confirmation, which must be the next message.
    pub async fn subscribe(&mut self, channel: &str) {
        self.ask(channel, None).await;
        let answer = self.expect("pusher_internal:subscription_succeeded").await;
        assert_eq!((&answer["channel"], &answer["data"]), (&channel.into(), &"{}".into()));
    }

    /// Joins a presence channel and returns the ids of its members.
    pub async fn join(&mut self, channel: &str, user_id: &str) -> Vec<String> {
        self.ask(channel, Some(&json!({ "user_id": user_id }))).await;
        let answer = self.expect("pusher_internal:subscription_succeeded").await;
        let data: Value = serde_json::from_str(answer["data"].as_str().expect("a string")).expect("data is JSON");
        let ids = data["presence"]["ids"].as_array().expect("ids are a list").iter();
        ids.map(|id| id.as_str().expect("ids are strings").to_owned()).collect()
    }

    /// Signs in and waits for the confirmation.
    pub async fn sign_in(&mut self, user_id: &str) {
        let user_data = json!({ "id": user_id }).to_string();
        let auth = sign_user(&self.session.app, self.socket_id, &user_data);
        self.session.send_event("pusher:signin", &json!({ "auth": auth, "user_data": user_data })).await;
        self.expect("pusher:signin_success").await;
    }

    /// Waits until the server has handled all sent messages. No other message can arrive before.
    pub async fn settle(&mut self) {
        self.session.send_event("pusher:ping", &json!({})).await;
        self.expect("pusher:pong").await;
    }
}

impl Drop for HttpClient {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Receives until the session ends.
async fn pump(session: Arc<HttpSession>, transport: Transport, lines: mpsc::UnboundedSender<Line>) {
    let mut is_open = false;
    loop {
        let mut response = session.receive(transport).await;
        while let Some(line) = response.line_if_any().await {
            if line == Line::Heartbeat && transport == Transport::Stream {
                session.ping().await;
            }
            let is_last =
                matches!(line, Line::Close(..)) || line == Line::Open && std::mem::replace(&mut is_open, true);
            if lines.send(line).is_err() || is_last {
                return;
            }
            if response.is_full() {
                break;
            }
        }
        let can_continue = if transport == Transport::Stream { response.is_full() } else { response.is_ended() };
        if !can_continue {
            return;
        }
    }
}
