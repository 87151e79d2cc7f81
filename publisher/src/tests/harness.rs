//! The whole API with one app, id `3`, and a node that records the events it receives.

use std::error::Error;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body as HttpBody;
use hyper::{HeaderMap, Method, Request, StatusCode};
use shared::app::{App, Apps};
use shared::auth::request::signed_query;
use shared::cluster::bus::{Bus, EnvelopeSink, MemoryBus};
use shared::cluster::envelope::{Body, Envelope, Topic, unix_us};
use shared::cluster::roster::{MemoryRoster, Roster};
use shared::protocol::{ChannelName, Member};
use shared::serve::telemetry::metrics::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::activity;
use crate::{Api, Deps};

pub(super) const SECRET: &str = "7ad3773142a6692b25b8";

pub(super) struct World {
    pub(super) app: App,
    pub(super) registry: Registry,
    pub(super) roster: Arc<MemoryRoster>,
    api: Api,
    bus: Arc<MemoryBus>,
    received: Arc<Recorder>,
}

/// A response with its whole body.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

#[derive(Default)]
struct Recorder(Mutex<Vec<(Topic, Envelope)>>);

impl EnvelopeSink for Recorder {
    fn deliver(&self, topic: &Topic, envelope: Envelope) {
        self.0.lock().unwrap().push((topic.clone(), envelope));
    }
}

pub(super) fn app() -> App {
    let json = format!(r#"{{"id":"3","key":"278d425bdf160c739803","secret":"{SECRET}"}}"#);
    serde_json::from_str(&json).unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(app(), "")
    }

    pub(super) fn with(app: App, path_prefix: &str) -> Self {
        activity::record_lines();
        let bus = MemoryBus::new();
        let roster = MemoryRoster::new(bus.clone());
        let received = Arc::new(Recorder::default());
        bus.deliver_to(received.clone());
        let registry = Registry::new();
        let api = Self::api(&app, bus.clone(), roster.clone(), &registry, path_prefix);
        Self { app, registry, roster, api, bus, received }
    }

    /// Creates a world whose API uses another bus and roster.
    pub(super) fn through(bus: Arc<dyn Bus>, roster: Arc<dyn Roster>) -> Self {
        let mut world = Self::new();
        world.api = Self::api(&world.app, bus, roster, &Registry::new(), "");
        world
    }

    fn api(app: &App, bus: Arc<dyn Bus>, roster: Arc<dyn Roster>, registry: &Registry, path_prefix: &str) -> Api {
        let apps = Apps::new([app.clone()]).unwrap();
        Api::new(Deps { apps, bus, roster, registry: registry.clone(), path_prefix: path_prefix.into() })
    }

    /// Subscribes the node to channels.
    pub(super) async fn subscribe(&self, channels: &[&str]) {
        for channel in channels {
            self.bus.subscribe(&self.topic(channel)).await.unwrap();
        }
    }

    pub(super) fn topic(&self, channel: &str) -> Topic {
        Topic::new(&self.app.id, &ChannelName::parse(channel, 200).unwrap())
    }

    /// Sets the number of subscriptions of a channel.
    pub(super) async fn occupy(&self, channel: &str, subscriptions: u64) {
        self.roster.set_subscriptions(&self.topic(channel), subscriptions, false).await.unwrap();
    }

    /// Adds a user with one connection to a presence channel.
    pub(super) async fn join(&self, channel: &str, channel_data: &str) {
        let member = Member::parse(channel_data, 128, 1024).unwrap();
        self.roster.join(&self.topic(channel), &member, 100, false).await.unwrap();
    }

    /// Returns the envelopes since the last call.
    pub(super) fn envelopes(&self) -> Vec<(Topic, Envelope)> {
        std::mem::take(&mut *self.received.0.lock().unwrap())
    }

    /// Returns the events since the last call: the JSON for clients, and the excluded connection.
    pub(super) fn events(&self) -> Vec<(String, Option<String>)> {
        let texts = self.envelopes().into_iter().map(|(_, envelope)| match envelope.body {
            Body::Event { frame, except, .. } => {
                (String::from_utf8(frame.to_vec()).unwrap(), except.map(|except| except.to_string()))
            }
            other => panic!("unexpected {other:?}"),
        });
        texts.collect()
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Reply {
        self.signed(Method::POST, path, &[], body).await
    }

    pub(super) async fn get(&self, path: &str, params: &[(&str, &str)]) -> Reply {
        self.signed(Method::GET, path, params, "").await
    }

    pub(super) async fn signed(&self, method: Method, path: &str, params: &[(&str, &str)], body: &str) -> Reply {
        let query = self.query(&method, path, params, body);
        self.send(method, &format!("{path}?{query}"), body).await
    }

    pub(super) fn query(&self, method: &Method, path: &str, params: &[(&str, &str)], body: &str) -> String {
        signed_query(&self.app, method.as_str(), path, params, body.as_bytes(), unix_us() / 1_000_000)
    }

    pub(super) async fn send(&self, method: Method, uri: &str, body: &str) -> Reply {
        self.send_body(method, uri, Full::from(body.to_owned())).await
    }

    /// Sends bytes over a connection of a listener, and returns everything that is received.
    pub(super) async fn wire(&self, request: &str) -> String {
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        near.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        let (served, read) =
            tokio::join!(shared::serve::http::serve_connection(far, &self.api), near.read_to_string(&mut response));
        served.unwrap();
        read.unwrap();
        response
    }

    /// Sends a request. Checks that the response does not contain the secret.
    pub(super) async fn send_body<B>(&self, method: Method, uri: &str, body: B) -> Reply
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let request = Request::builder().method(method).uri(uri).body(body).unwrap();
        let (head, body) = self.api.handle(request).await.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert!(!body.contains(SECRET), "{body}");
        Reply { status: head.status, headers: head.headers, body }
    }
}

impl Reply {
    #[track_caller]
    pub(super) fn check(&self, status: u16, body: &str) {
        assert_eq!((self.status.as_u16(), self.body.as_str()), (status, body));
    }

    /// Expects an error with a line of plain text.
    #[track_caller]
    pub(super) fn refused(&self, status: u16, text: &str) {
        self.check(status, text);
        assert_eq!(self.header("content-type"), Some("text/plain; charset=utf-8"));
    }

    /// Expects a 200 with a JSON object.
    #[track_caller]
    pub(super) fn ok(&self, body: &str) {
        self.check(200, body);
        assert_eq!(self.header("content-type"), Some("application/json"));
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}
