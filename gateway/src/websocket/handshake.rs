//! Checks the request that opens a WebSocket against RFC 6455.

use std::sync::atomic::{AtomicU64, Ordering};

use fastwebsockets::upgrade::is_upgrade_request;
use hyper::header::{
    ALLOW, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, StatusCode, Version};
use shared::serve::http::{self, Response};

/// The only version of the WebSocket protocol.
const VERSION: &str = "13";

/// The minimum time between two warnings about invalid handshakes, in seconds.
const WARNING_INTERVAL_S: u64 = 60;

/// Why a request cannot open a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidHandshake {
    /// The method is not GET.
    #[error("a WebSocket handshake must be a GET request")]
    Method,
    /// HTTP/1.0 does not support upgrades. By default, nginx uses it for upstream requests.
    #[error(
        "a WebSocket handshake needs HTTP/1.1, and this request came as HTTP/1.0; behind nginx set proxy_http_version 1.1"
    )]
    Http10,
    /// The request has no upgrade headers.
    #[error("this path serves WebSockets: a request needs the headers Connection: Upgrade and Upgrade: websocket")]
    NoUpgrade,
    /// The upgrade headers are missing although those of a WebSocket are present.
    #[error(
        "a proxy has removed the headers Connection: Upgrade and Upgrade: websocket from this handshake; behind nginx set \
         proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade and proxy_set_header Connection \"upgrade\""
    )]
    UpgradeRemoved,
    /// There is not exactly one `Host` header.
    #[error("a WebSocket handshake needs one Host header")]
    Host,
    /// `Sec-WebSocket-Version` is missing or not 13.
    #[error("a WebSocket handshake needs Sec-WebSocket-Version: {VERSION}")]
    Version,
    /// A header that must be unique is repeated.
    #[error("a WebSocket handshake may have only one {0} header")]
    Repeated(&'static str),
    /// `Sec-WebSocket-Key` is missing or malformed.
    #[error("a WebSocket handshake needs a Sec-WebSocket-Key of 16 bytes in base64")]
    Key,
    /// The request has a body, whose bytes would be read as frames.
    #[error("a WebSocket handshake must have no body")]
    Body,
}

impl InvalidHandshake {
    /// The labels of all variants.
    pub(crate) const LABELS: [&str; 9] =
        ["method", "http_1_0", "no_upgrade", "upgrade_removed", "host", "version", "repeated", "key", "body"];

    /// Returns the error as a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Http10 => "http_1_0",
            Self::NoUpgrade => "no_upgrade",
            Self::UpgradeRemoved => "upgrade_removed",
            Self::Host => "host",
            Self::Version => "version",
            Self::Repeated(_) => "repeated",
            Self::Key => "key",
            Self::Body => "body",
        }
    }

    /// Returns the response, which closes the connection. Sources of the status codes: RFC 6455, 4.2.1 and 4.4, and
    /// RFC 9110, 15.5.
    pub(crate) fn response(self) -> Response {
        let status = match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Http10 | Self::NoUpgrade | Self::UpgradeRemoved | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Host | Self::Repeated(_) | Self::Key | Self::Body => StatusCode::BAD_REQUEST,
        };
        let mut response = http::text(status, self.to_string());
        let headers = response.headers_mut();
        if status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        match self {
            Self::Method => drop(headers.insert(ALLOW, HeaderValue::from_static("GET"))),
            Self::Version => drop(headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION))),
            _ => {}
        }
        http::end_connection(&mut response);
        response
    }

    /// Whether a proxy causes the error. An operator must then change its configuration.
    pub(crate) fn is_caused_by_proxy(self) -> bool {
        matches!(self, Self::Http10 | Self::UpgradeRemoved)
    }
}

/// Whether a request asks for a WebSocket, by HTTP/1.1 or HTTP/1.0.
pub(crate) fn is_attempt<B>(request: &Request<B>) -> bool {
    is_upgrade_request(request)
}

/// Checks the request of a handshake.
///
/// # Errors
/// The first rule that the request violates.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), InvalidHandshake> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(InvalidHandshake::Method);
    }
    if request.version() < Version::HTTP_11 {
        return Err(InvalidHandshake::Http10);
    }
    if !is_upgrade_request(request) {
        let was_handshake = headers.contains_key(SEC_WEBSOCKET_KEY) || headers.contains_key(SEC_WEBSOCKET_VERSION);
        return Err(if was_handshake { InvalidHandshake::UpgradeRemoved } else { InvalidHandshake::NoUpgrade });
    }
    if headers.get_all(HOST).iter().count() != 1 {
        return Err(InvalidHandshake::Host);
    }
    if single(headers, SEC_WEBSOCKET_VERSION, "Sec-WebSocket-Version")? != VERSION {
        return Err(InvalidHandshake::Version);
    }
    if !is_key(single(headers, SEC_WEBSOCKET_KEY, "Sec-WebSocket-Key")?) {
        return Err(InvalidHandshake::Key);
    }
    let is_empty = headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0");
    if headers.contains_key(TRANSFER_ENCODING) || !is_empty {
        return Err(InvalidHandshake::Body);
    }
    Ok(())
}

/// Returns the value of a header that must be unique. It is empty if the header is missing or not text.
fn single<'a>(headers: &'a HeaderMap, name: HeaderName, shown: &'static str) -> Result<&'a str, InvalidHandshake> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(InvalidHandshake::Repeated(shown));
    }
    Ok(first.and_then(|value| value.to_str().ok()).unwrap_or_default())
}

/// Whether a text is the base64 encoding of 16 bytes: 22 characters and two of padding.
fn is_key(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    text.len() == 24 && text.strip_suffix("==").is_some_and(|digits| digits.bytes().all(is_base64))
}

/// A rate limit of one warning per interval.
#[derive(Debug, Default)]
pub(crate) struct WarningLimit {
    /// When the next warning is allowed, in seconds since the node started.
    next_s: AtomicU64,
}

impl WarningLimit {
    /// Whether a warning may be logged now. If so, the next interval begins.
    pub(crate) fn may_warn(&self, now_s: u64) -> bool {
        let next_s = self.next_s.load(Ordering::Relaxed);
        let exchange = |next| self.next_s.compare_exchange(next_s, next, Ordering::Relaxed, Ordering::Relaxed);
        now_s >= next_s && exchange(now_s + WARNING_INTERVAL_S).is_ok()
    }
}

#[cfg(test)]
mod tests;
