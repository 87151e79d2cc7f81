//! Apps: the tenants of the server, with their settings and limits.

pub mod endpoint;
mod id;
mod kind;
mod label;

use std::sync::Arc;

use bytesize::ByteSize;
use hashbrown::HashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::secret::Secret;

pub use endpoint::Endpoint;
pub use id::{AppId, AppKey, KEY_EXPECTED, is_key};
pub use kind::{WebhookKind, WebhookKinds};
pub use label::{Label, LabelError};

/// An app: a tenant with its credentials, features and limits.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// The id of the app in the URLs of the HTTP API: letters, digits, hyphens, dots, underscores and tildes.
    #[schemars(schema_with = "config::schema::text")]
    pub id: AppId,
    /// The public key of the app. Clients put it into their URL, and it precedes the last colon of signatures. At most
    /// 200 bytes that the path of a URL can hold.
    #[schemars(schema_with = "config::schema::text")]
    pub key: AppKey,
    /// The secret that signs requests, channels and sign-ins. Either `secret` or `secret_file` is required.
    #[serde(default = "no_secret")]
    #[schemars(schema_with = "config::schema::secret")]
    pub secret: Secret,
    /// A file to read the secret from. Its last line break is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "config::schema::path")]
    pub secret_file: Option<std::path::PathBuf>,
    /// Whether the app is enabled. A disabled app refuses connections with 4003 and requests with 403.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The origins whose pages may connect: hosts, or origins with a scheme. `*` matches any characters. A client
    /// without an `Origin` header may connect, because every browser sends one.
    #[serde(default = "any_origin")]
    pub allowed_origins: Vec<String>,
    /// Whether clients may send `client-` events.
    #[serde(default = "yes")]
    pub client_events: bool,
    /// Whether subscribers receive the number of subscriptions of their channels.
    #[serde(default)]
    pub subscription_count: bool,
    /// Whether signed-in users may watch the presence of other users.
    #[serde(default = "yes")]
    pub watchlist: bool,
    /// Whether a connection must sign in, or join a private or presence channel, within 30 s.
    #[serde(default)]
    pub authorized_connections: bool,
    /// The endpoints that receive the app's webhooks, one table each. They must be the same on every node.
    /// [Webhooks](WEBHOOKS.md) describes the events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Endpoint>,
    /// The limits of what the app's users and backend may send, and of what the server stores for them. The defaults
    /// are those of Pusher if Pusher has such a limit.
    #[serde(default)]
    pub limits: AppLimits,
}

/// The limits of an app. Source of the defaults: protocol reference 3.4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AppLimits {
    /// The maximum number of connections in the whole cluster. While Redis is unavailable, the limit applies to each
    /// node. 0 means no limit.
    ///
    /// A further client waits for up to about half a second until another one disconnects. Otherwise, it is closed with
    /// 4004, after which pusher-js does not reconnect. If the count may be outdated, it is closed with 4100, and it
    /// retries.
    pub connections: usize,
    /// The maximum number of subscriptions of one connection. A further subscription fails with status 4100.
    ///
    /// It also limits the rate. This many subscriptions and sign-ins, plus 100, are accepted at once, and then 50 per
    /// second. Further ones fail with status 4301. Unsubscribing is never limited.
    #[schemars(range(min = 1))]
    pub channels_per_connection: usize,
    /// The maximum number of client events that one connection may send per second, on average and at once. Further
    /// ones get an error with code 4301. 0 means no limit.
    pub client_events_per_second: u32,
    /// The maximum number of events that the HTTP API accepts per second on one node, on average and at once. Further
    /// requests get 429. 0 means no limit.
    pub events_per_second: u32,
    /// The maximum size of a message from a client, at most 64MiB. A client with a larger message is closed with 1009.
    /// Requests of the HTTP transports may be four times as large because of JSON escapes. Larger ones get 413.
    #[serde(serialize_with = "config::exact_size")]
    #[schemars(schema_with = "config::schema::size")]
    pub message_bytes: ByteSize,
    /// The maximum size of the `data` of an event, at most half of `server.outbox_bytes`. A larger event gets 413, or
    /// an error if a client sent it.
    #[serde(serialize_with = "config::exact_size")]
    #[schemars(schema_with = "config::schema::size")]
    pub event_bytes: ByteSize,
    /// The maximum length of a channel name in characters, with its prefix. It must have room for `#server-to-user-`
    /// and a user id.
    #[schemars(range(min = 1))]
    pub channel_name_length: usize,
    /// The maximum length of an event name in characters.
    #[schemars(range(min = 1))]
    pub event_name_length: usize,
    /// The maximum number of channels of one publish.
    #[schemars(range(min = 1))]
    pub channels_per_event: usize,
    /// The maximum number of events of one batch.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// The maximum number of users of one presence channel. The subscription of a further user fails with status 4100.
    #[schemars(range(min = 1))]
    pub presence_members: usize,
    /// The maximum size of the `user_info` of a member, as JSON.
    #[serde(serialize_with = "config::exact_size")]
    #[schemars(schema_with = "config::schema::size")]
    pub user_info_bytes: ByteSize,
    /// The maximum length of a user id in characters.
    #[schemars(range(min = 1))]
    pub user_id_length: usize,
    /// The maximum number of users that one signed-in connection may watch.
    pub watchlist: usize,
}

impl App {
    /// Returns an app with the default of every other setting.
    pub fn with_defaults(id: &str, key: &str, secret: &str) -> Self {
        serde_json::from_value(serde_json::json!({ "id": id, "key": key, "secret": secret }))
            .expect("every other setting of an app has a default")
    }

    /// Returns the kinds of webhook events that at least one endpoint of the app receives.
    pub fn webhook_kinds(&self) -> WebhookKinds {
        self.webhooks.iter().flat_map(Endpoint::kinds).collect()
    }
}

impl Default for AppLimits {
    fn default() -> Self {
        Self {
            connections: 0,
            channels_per_connection: 1_000,
            client_events_per_second: 10,
            events_per_second: 0,
            message_bytes: ByteSize::kib(64),
            event_bytes: ByteSize::b(10_240),
            channel_name_length: 200,
            event_name_length: 200,
            channels_per_event: 100,
            batch: 10,
            presence_members: 100,
            user_info_bytes: ByteSize::kib(1),
            user_id_length: 128,
            watchlist: 100,
        }
    }
}

impl AppLimits {
    /// Returns the largest body of an HTTP API request, in bytes.
    ///
    /// It is the size of a full batch with a full list of channels. Every byte of data has the longest escape of JSON,
    /// `\u0000`, and the names of each event take 1 KiB.
    pub fn request_bytes(&self) -> usize {
        let event = 6 * as_usize(self.event_bytes) + 1024;
        self.batch.max(1) * event + self.channels_per_event * (self.channel_name_length + 3)
    }
}

/// Converts a configured size to bytes.
pub fn as_usize(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// All apps of a node, by id and by key. They do not change while the process runs.
#[derive(Clone, Debug, Default)]
pub struct Apps {
    by_id: HashMap<AppId, Arc<App>>,
    by_key: HashMap<AppKey, Arc<App>>,
}

/// The reason why a list of apps is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppsError {
    /// Two apps have the same id.
    #[error("app id {0:?} is configured twice")]
    Id(AppId),
    /// Two apps have the same key.
    #[error("app key {0:?} is configured twice")]
    Key(AppKey),
}

impl Apps {
    /// Indexes the apps.
    ///
    /// # Errors
    /// [`AppsError`] if two apps have the same id or key.
    pub fn new(apps: impl IntoIterator<Item = App>) -> Result<Self, AppsError> {
        let mut all = Self::default();
        for app in apps {
            let app = Arc::new(app);
            if all.by_id.insert(app.id.clone(), app.clone()).is_some() {
                return Err(AppsError::Id(app.id.clone()));
            }
            if all.by_key.insert(app.key.clone(), app.clone()).is_some() {
                return Err(AppsError::Key(app.key.clone()));
            }
        }
        Ok(all)
    }

    /// Returns the app with this id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.by_id.get(id)
    }

    /// Returns the app with this key.
    pub fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.by_key.get(key)
    }

    /// Returns all apps in any order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        self.by_id.values()
    }
}

fn no_secret() -> Secret {
    Secret::new("")
}

fn yes() -> bool {
    true
}

fn any_origin() -> Vec<String> {
    vec!["*".into()]
}
