//! Tenants: who may use this server, and within which limits.

pub mod endpoint;
mod id;
mod kind;
mod label;

use std::sync::Arc;

use bytesize::ByteSize;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::secret::Secret;

pub use endpoint::Endpoint;
pub use id::{AppId, AppKey, KEY_EXPECTED, is_key};
pub use kind::{WebhookKind, WebhookKinds};
pub use label::{Label, LabelError};

/// A tenant and its rules.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Stands in the URLs of the HTTP API.
    pub id: AppId,
    /// Stands in the URL of the WebSocket and before the colon of signatures.
    pub key: AppKey,
    /// Signs everything.
    #[serde(default = "no_secret")]
    pub secret: Secret,
    /// A file to read the secret from instead; its last line break is not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<std::path::PathBuf>,
    /// A switched-off app refuses connections with 4003 and requests with 403.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Hosts whose pages may connect: exact, or with `*` for any run of characters. A client without an `Origin`
    /// header, which no browser is, is let in.
    #[serde(default = "any_origin")]
    pub allowed_origins: Vec<String>,
    /// Whether sockets may send `client-` events.
    #[serde(default = "yes")]
    pub client_events: bool,
    /// Whether subscribers hear how many they are.
    #[serde(default)]
    pub subscription_count: bool,
    /// Whether signed-in users may watch others come and go.
    #[serde(default = "yes")]
    pub watchlist: bool,
    /// Whether a connection must sign in, or join a private or presence channel, within 30 s.
    #[serde(default)]
    pub authorized_connections: bool,
    /// Where the application is told of what happens, as `[[apps.webhooks]]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Endpoint>,
    /// Bounds on everything that this app's users send or hold.
    #[serde(default)]
    pub limits: AppLimits,
}

/// Bounds on what an app's users send or hold. The defaults are Pusher's where it has one. Source: protocol reference 3.4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppLimits {
    /// Open connections in the whole cluster; 0 means no limit. Beyond it: 4004, or 4100 while the count is uncertain.
    pub connections: usize,
    /// Subscriptions of one connection.
    pub channels_per_connection: usize,
    /// Client events that one connection may send in a second, on average and as a burst; 0 means no limit.
    pub client_events_per_second: u32,
    /// Events that the HTTP API takes in a second on one node, on average and as a burst; 0 means no limit. Beyond it: 429.
    pub events_per_second: u32,
    /// Largest message from a client. Beyond it: 1009.
    #[serde(serialize_with = "config::exact_size")]
    pub message_bytes: ByteSize,
    /// Largest `data` of an event, from the HTTP API or a client.
    #[serde(serialize_with = "config::exact_size")]
    pub event_bytes: ByteSize,
    /// Longest channel name, in characters.
    pub channel_name_length: usize,
    /// Longest event name, in characters.
    pub event_name_length: usize,
    /// Channels of one publish.
    pub channels_per_event: usize,
    /// Events of one batch.
    pub batch: usize,
    /// Users of one presence channel.
    pub presence_members: usize,
    /// Largest `user_info` of a member, in bytes of JSON.
    #[serde(serialize_with = "config::exact_size")]
    pub user_info_bytes: ByteSize,
    /// Longest user id, in characters.
    pub user_id_length: usize,
    /// Users that one signed-in connection may watch.
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
    /// Largest body of an HTTP API request, in bytes: a full batch in which JSON's longest escape, `\u0000`, stands for
    /// every byte of data, plus 1 KiB for the names of each event, plus a full list of channels.
    pub fn request_bytes(&self) -> usize {
        let event = 6 * as_usize(self.event_bytes) + 1024;
        self.batch.max(1) * event + self.channels_per_event * (self.channel_name_length + 3)
    }
}

/// A configured size as a count of bytes in memory.
pub fn as_usize(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// All apps of a node, found by id or key; fixed for the life of the process.
#[derive(Clone, Debug, Default)]
pub struct Apps {
    by_id: HashMap<AppId, Arc<App>>,
    by_key: HashMap<AppKey, Arc<App>>,
}

/// Two apps share what must be unique.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppsError {
    /// Two apps with one id.
    #[error("app id {0:?} is configured twice")]
    Id(AppId),
    /// Two apps with one key.
    #[error("app key {0:?} is configured twice")]
    Key(AppKey),
}

impl Apps {
    /// Indexes the apps.
    ///
    /// # Errors
    /// [`AppsError`] when two share an id or a key.
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

    /// The app with this id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.by_id.get(id)
    }

    /// The app with this key.
    pub fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.by_key.get(key)
    }

    /// Every app, in no order.
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
