use std::error::Error;

use bytesize::ByteSize;
use serde_json::{Value, json};
use shared::auth::{sign_channel, sign_user};

use super::*;

mod client_event;
mod rate;
mod sign_in;
mod subscribe;

/// Returns an app with small limits, changed by `change`.
fn app(change: impl FnOnce(&mut App)) -> Arc<App> {
    let app = json!({"id": "app", "key": "key", "secret": "secret"});
    let mut app: App = serde_json::from_value(app).unwrap();
    app.limits.channels_per_connection = 3;
    app.limits.channel_name_length = 40;
    app.limits.event_name_length = 20;
    app.limits.event_bytes = ByteSize::b(16);
    app.limits.client_events_per_second = 2;
    app.limits.user_id_length = 10;
    app.limits.user_info_bytes = ByteSize::b(16);
    app.limits.watchlist = 2;
    change(&mut app);
    Arc::new(app)
}

/// A session with a clock, and with a cluster that replies on request.
struct Client {
    app: Arc<App>,
    session: Session,
    now: Instant,
}

fn socket() -> SocketId {
    "1234.1234".parse().unwrap()
}

impl Client {
    fn new() -> Self {
        Self::of(app(|_| {}))
    }

    fn of(app: Arc<App>) -> Self {
        Self { session: Session::new(socket(), app.clone()), app, now: Instant::now() }
    }

    /// Returns the session's action for a message as a text.
    fn sends(&mut self, message: &Value) -> String {
        let text = message.to_string();
        let frame = ClientFrame::parse(&text).unwrap();
        match self.session.on_frame(frame, self.now) {
            Ok(action) => describe(action),
            Err(refusal) => format!("refused: {}", cause(&refusal)),
        }
    }

    #[track_caller]
    fn check(&mut self, message: &Value, expected: &str) {
        assert_eq!(self.sends(message), expected, "{message}");
    }

    /// Returns a valid `auth` for a channel.
    fn auth(&self, channel: &str, channel_data: Option<&str>) -> String {
        let channel = ChannelName::parse(channel, 200).unwrap();
        sign_channel(&self.app, socket(), &channel, channel_data)
    }

    /// Subscribes with a valid signature.
    fn subscribes(&mut self, channel: &str, channel_data: Option<&str>) -> String {
        let auth = self.auth(channel, channel_data);
        self.sends(&subscribe(channel, Some(&auth), channel_data))
    }

    /// Confirms a pending subscription.
    #[track_caller]
    fn enters(&mut self, channel: &str) {
        let channel = ChannelName::parse(channel, 200).unwrap();
        let ticket = self.session.subscriptions.find_mut(&channel).expect("a subscription").ticket;
        self.session.subscriptions.confirm(&channel, ticket).expect("the same").slot = Some(7);
    }

    fn joins(&mut self, channel: &str, channel_data: Option<&str>) {
        self.subscribes(channel, channel_data);
        self.enters(channel);
    }

    fn signs_in(&mut self, user_data: &str) -> String {
        let auth = sign_user(&self.app, socket(), user_data);
        self.sends(&sign_in(&auth, user_data))
    }

    /// Confirms a pending sign-in.
    fn is_signed_in(&mut self) {
        self.session.signed_in().expect("a sign-in").slot = Some(7);
    }
}

fn subscribe(channel: &str, auth: Option<&str>, channel_data: Option<&str>) -> Value {
    let mut data = json!({"channel": channel});
    if let Some(auth) = auth {
        data["auth"] = auth.into();
    }
    if let Some(channel_data) = channel_data {
        data["channel_data"] = channel_data.into();
    }
    json!({"event": "pusher:subscribe", "data": data})
}

fn unsubscribe(channel: &str) -> Value {
    json!({"event": "pusher:unsubscribe", "data": {"channel": channel}})
}

fn sign_in(auth: &str, user_data: &str) -> Value {
    json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}})
}

fn client_event(name: &str, channel: &str, data: Value) -> Value {
    json!({"event": name, "channel": channel, "data": data})
}

fn describe(action: Action) -> String {
    match action {
        Action::Nothing => "nothing".into(),
        Action::Send(json) => format!("send {json}"),
        Action::Subscribe { channel, member: None, .. } => format!("enter {channel}"),
        Action::Subscribe { channel, member: Some(member), .. } => {
            format!("enter {channel} as {} {}", member.user_id, member.user_info.as_deref().unwrap_or("-"))
        }
        Action::Resubscribe { channel, .. } => format!("reply again {channel}"),
        Action::Unsubscribe(Subscription { channel, user_id: None, .. }) => format!("leave {channel}"),
        Action::Unsubscribe(Subscription { channel, user_id: Some(user_id), .. }) => {
            format!("leave {channel} as {user_id}")
        }
        Action::SignIn { user_channel, user_data, too_long: None } => format!("sign in to {user_channel}: {user_data}"),
        Action::SignIn { user_channel, too_long: Some(refusal), .. } => {
            format!("sign in to {user_channel}, {}", refusal)
        }
        Action::Publish { channel, name, json, .. } => format!("publish {name} on {channel}: {json}"),
    }
}

/// Returns the session's reason for a refusal.
fn cause(refusal: &Refusal) -> String {
    refusal.source().map_or_else(|| refusal.to_string(), ToString::to_string)
}

#[test]
fn a_ping_is_answered_and_a_pong_is_not() {
    let mut client = Client::new();
    client.check(&json!({"event": "pusher:ping", "data": {}}), r#"send {"event":"pusher:pong","data":{}}"#);
    client.check(&json!({"event": "pusher:ping"}), r#"send {"event":"pusher:pong","data":{}}"#);
    client.check(&json!({"event": "pusher:pong", "data": {}}), "nothing");
}

#[test]
fn events_that_no_client_may_send_are_refused() {
    let mut client = Client::new();
    client.joins("presence-a", Some(r#"{"user_id":"1"}"#));
    for event in [
        "pusher:hello",
        "pusher:connection_established",
        "pusher:error",
        "pusher_internal:subscription_succeeded",
        "pusher_internal:member_added",
        "pusher_internal:member_removed",
        "my-event",
        "Client-a",
        "client_a",
        "",
    ] {
        client.check(&json!({"event": event, "channel": "presence-a", "data": "{}"}), "refused: unknown event");
    }
}

#[test]
fn a_new_session_has_no_user_and_no_subscription() {
    let mut client = Client::new();
    assert!(client.session.signed_in().is_none() && client.session.sign_out().is_none());
    assert!(!client.session.is_authorized());
    assert_eq!(client.session.subscriptions.count(), 0);
}

#[test]
fn a_valid_signature_authorizes_a_session_permanently() {
    #[track_caller]
    fn check(authorized: bool, act: impl FnOnce(&mut Client)) {
        let mut client = Client::new();
        act(&mut client);
        assert_eq!(client.session.is_authorized(), authorized);
    }
    check(false, |client| client.joins("news", None));
    check(false, |client| client.joins("cache-news", None));
    check(true, |client| client.joins("private-a", None));
    check(true, |client| client.joins("private-encrypted-a", None));
    check(true, |client| client.joins("presence-a", Some(r#"{"user_id":"1"}"#)));
    check(true, |client| drop(client.signs_in(r#"{"id":"1"}"#)));
    check(false, |client| drop(client.sends(&subscribe("private-a", Some("key:bad"), None))));
    check(false, |client| drop(client.sends(&sign_in("key:bad", r#"{"id":"1"}"#))));
    check(false, |client| drop(client.signs_in(r#"{"id":1}"#)));
    check(true, |client| {
        client.joins("private-a", None);
        client.sends(&unsubscribe("private-a"));
    });
}
