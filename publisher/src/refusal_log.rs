//! Logs refused requests, for `--debug`.

use std::error::Error;
use std::fmt::Write;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use serde::Deserialize;
use shared::excerpt::{NAME_MAX, logged};
use shared::json::Object;
use tokio::sync::Semaphore;

use crate::api_error::ApiError;
use crate::limits::{LOGGED_BODIES_MAX, LOGGED_BODY_BYTES_MAX, LOGGED_CHANNELS_MAX};
use crate::received::Received;
use crate::text::Text;

/// Writes a log line for each refused request. Does nothing if the level is disabled.
pub(crate) struct RefusalLog {
    /// A permit for each body that is kept to log its channels.
    bodies: Semaphore,
}

/// The channels in the body of a request that is not necessarily valid.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    channels: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    batch: Option<Vec<Object<Named<'a>>>>,
}

impl Default for RefusalLog {
    fn default() -> Self {
        Self { bodies: Semaphore::new(LOGGED_BODIES_MAX) }
    }
}

impl RefusalLog {
    /// Logs a refused request. `app` and `channel`: from the path, not validated.
    pub(crate) async fn write<B>(
        &self,
        route: &'static str,
        app: Option<&str>,
        channel: Option<&str>,
        head: &Parts,
        body: &mut Received<B>,
        error: &ApiError,
    ) where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if !tracing::enabled!(target: "activity", tracing::Level::DEBUG) {
            return;
        }
        self.read_small(head, body).await;
        let channels = match channel {
            Some(name) => logged(name, NAME_MAX).to_string(),
            None => channels_of(body.bytes()),
        };
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        tracing::debug!(
            target: "activity",
            {
                app.id = app.map(|id| tracing::field::display(logged(id, NAME_MAX))),
                route,
                channel.name = (!channels.is_empty()).then_some(channels.as_str()),
                body.bytes = body.size(),
                status = error.status().as_u16(),
                reason = %format_args!("{error}{cause}"),
            },
            "Request refused"
        );
    }

    /// Reads an unread body if it is small and if few others are being read.
    async fn read_small<B>(&self, head: &Parts, body: &mut Received<B>)
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // A client that waits for a `100 Continue` must not send a body that is not used.
        if !body.is_unread() || head.headers.contains_key(EXPECT) {
            return;
        }
        if let Ok(_permit) = self.bodies.try_acquire() {
            // Without the body, the line is written without channels.
            let _ = body.read(LOGGED_BODY_BYTES_MAX).await;
        }
    }
}

fn channels_of(body: &[u8]) -> String {
    let Object(named) = serde_json::from_slice::<Object<Named<'_>>>(body).unwrap_or_default();
    let mut names = named.names();
    let mut list = String::new();
    for (index, name) in names.by_ref().take(LOGGED_CHANNELS_MAX).enumerate() {
        let separator = if index > 0 { ", " } else { "" };
        // Writing to memory cannot fail.
        let _ = write!(list, "{separator}{}", logged(name, NAME_MAX));
    }
    match names.count() {
        0 => {}
        more => {
            let _ = write!(list, ", and {more} more");
        }
    }
    list
}

impl Named<'_> {
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        let own = self.channels.iter().flatten().chain(&self.channel).map(|name| &**name);
        Box::new(own.chain(self.batch.iter().flatten().flat_map(|event| event.0.names())))
    }
}
