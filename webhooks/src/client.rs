//! Requests to endpoints: HTTP/1.1 with header names in the case that receivers look for, no redirects, and nothing
//! unbounded.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use shared::app::{App, Endpoint};
use shared::cluster::webhook::WebhookEvent;

use crate::ClientError;
use crate::address::{Guard, RefusedAddress};
use crate::config::Config;
use crate::message::Message;

/// Headers that an endpoint's configuration cannot set.
pub const RESERVED_HEADERS: [&str; 8] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    EVENT_ID,
    "x-pusher-key",
    "x-pusher-signature",
];

/// Names the one entry that a request tells of.
const EVENT_ID: &str = "x-carillon-event-id";

/// What is read of an answer, so that the connection can be used again; the rest is cut off with it.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// How long that is waited for: what the answer means is known already.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections that are kept for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends requests, for all endpoints.
pub(super) struct Client {
    http: reqwest::Client,
    guard: Guard,
}

/// Why an endpoint was not told.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    /// It answered, but not with success.
    #[error("the endpoint answered {0}")]
    Status(StatusCode),
    /// It did not answer in time.
    #[error("the endpoint did not answer in time")]
    Timeout,
    /// Its address is none that is asked.
    #[error(transparent)]
    Refused(#[from] RefusedAddress),
    /// It could not be reached, or broke off. The text does not repeat the URL.
    #[error("{0}")]
    Transport(String),
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, ClientError> {
        let guard = Guard { refuse_private: config.refuse_private_networks };
        let http = reqwest::Client::builder()
            .http1_only()
            .http1_title_case_headers()
            .redirect(Policy::none())
            // A proxy would look names up by itself.
            .no_proxy()
            .dns_resolver(Arc::new(guard))
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
            .timeout(config.timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent(concat!("Carillon/", env!("CARGO_PKG_VERSION")))
            .use_preconfigured_tls(config.trust()?.client(None)?)
            .build()?;
        Ok(Self { http, guard })
    }

    /// Tells an endpoint of `events` in one request.
    pub(super) async fn send(
        &self,
        app: &App,
        endpoint: &Endpoint,
        events: &[WebhookEvent],
    ) -> Result<(), AttemptError> {
        self.guard.check_url(&endpoint.url)?;
        let message = Message::new(app, events);
        let request = self.http.post(endpoint.url.clone()).headers(headers(app, endpoint, &message)).body(message.body);
        let response = request.send().await.map_err(AttemptError::from)?;
        let status = response.status();
        let _ = tokio::time::timeout(ANSWER_TIMEOUT, read_some(response)).await;
        if status.is_success() { Ok(()) } else { Err(AttemptError::Status(status)) }
    }
}

fn headers(app: &App, endpoint: &Endpoint, message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        // Both were checked with the configuration.
        if let (Ok(name), Ok(mut value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value.reveal())) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let texts = [
        ("x-pusher-key", Some(app.key.as_str())),
        ("x-pusher-signature", Some(message.signature.as_str())),
        (EVENT_ID, message.event_id.as_deref()),
    ];
    for (name, text) in texts {
        // An app's key is made of letters and digits, and so are the others.
        if let Some(Ok(value)) = text.map(HeaderValue::from_str) {
            headers.insert(name, value);
        }
    }
    headers
}

async fn read_some(mut response: Response) {
    let mut left = ANSWER_BYTES_MAX;
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl From<reqwest::Error> for AttemptError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if let Some(refused) = inner.downcast_ref::<RefusedAddress>() {
                return Self::Refused(*refused);
            }
            cause = inner.source();
        }
        if error.is_timeout() {
            return Self::Timeout;
        }
        // The last cause says most: "connection refused" rather than "error sending request".
        let mut last: &dyn Error = &error;
        while let Some(inner) = last.source() {
            last = inner;
        }
        Self::Transport(last.to_string())
    }
}
