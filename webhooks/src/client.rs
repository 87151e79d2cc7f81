//! Sends webhook requests over HTTP/1.1. Does not follow redirects.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use shared::app::{App, Endpoint};
use shared::cluster::webhook::WebhookEvent;
use shared::serve::tls::files::FileError;

use crate::address::{Guard, RefusedAddress};
use crate::config::Config;
use crate::message::Message;

/// Headers that the configuration of an endpoint cannot set.
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

/// The header with the id of the event, in requests with one event.
const EVENT_ID: &str = "x-carillon-event-id";

/// The part of a response body that is read, so that the connection can be reused. A longer body closes the connection.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;

/// The time for reading a response body. The status is known before.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long idle connections are kept open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// An HTTP client for all endpoints.
pub(super) struct Client {
    http: reqwest::Client,
    guard: Guard,
}

/// The reason why no HTTP client can be created.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The system lacks something that HTTP clients need.
    #[error("cannot create the HTTP client for webhooks")]
    Http(#[from] reqwest::Error),
    /// The trusted certificates cannot be read.
    #[error("webhooks.ca_file")]
    Certificates(#[from] FileError),
    /// TLS cannot be configured.
    #[error("cannot set up TLS for webhooks")]
    Tls(#[from] rustls::Error),
}

/// The reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    /// A status other than 2xx.
    #[error("the endpoint responded with {0}")]
    Status(StatusCode),
    /// No response within `webhooks.timeout`.
    #[error("the endpoint did not respond in time")]
    Timeout,
    /// An address that is not allowed.
    #[error(transparent)]
    Refused(#[from] RefusedAddress),
    /// A failed or broken connection. The text does not contain the URL.
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
            // A proxy would resolve host names itself and bypass the guard.
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

    /// Sends `events` to an endpoint in one request.
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
        let _ = tokio::time::timeout(RESPONSE_TIMEOUT, discard_body(response)).await;
        if status.is_success() { Ok(()) } else { Err(AttemptError::Status(status)) }
    }
}

fn headers(app: &App, endpoint: &Endpoint, message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        // The validation of the configuration guarantees that both can be parsed.
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
        // None of these contains characters that header values cannot have.
        if let Some(Ok(value)) = text.map(HeaderValue::from_str) {
            headers.insert(name, value);
        }
    }
    headers
}

async fn discard_body(mut response: Response) {
    let mut left = RESPONSE_BYTES_MAX;
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
        // The last cause is the most specific: "connection refused" instead of "error sending request".
        let mut last: &dyn Error = &error;
        while let Some(inner) = last.source() {
            last = inner;
        }
        Self::Transport(last.to_string())
    }
}
