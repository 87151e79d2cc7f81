//! The route table.

use std::borrow::Cow;
use std::error::Error;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::Method;
use hyper::body::Body;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use shared::serve::http::{self, HEALTH_PATHS, Response};

use crate::api::Api;
use crate::api_error::ApiError;
use crate::received::Received;
use crate::signed::{AppName, SignedRequest};

mod batch_events;
mod channel;
mod channel_events;
mod channel_users;
mod channels;
mod connections;
mod events;
mod health;
mod terminate_connections;

/// Segments of a pattern that match any text.
const APP: &str = "{app}";
const CHANNEL: &str = "{channel}";
const USER: &str = "{user}";

/// All routes. Several patterns can share a label. Source: protocol reference 4.2 and 4.4.
static ROUTES: [Route; 12] = [
    unsigned(&["up"], "health", health::get),
    unsigned(&[""], "health", health::get),
    signed(Method::POST, &["apps", APP, "events"], "events", |api, request, _| Box::pin(events::post(api, request))),
    signed(Method::POST, &["apps", APP, "batch_events"], "batch_events", |api, request, _| {
        Box::pin(batch_events::post(api, request))
    }),
    signed(Method::GET, &["apps", APP, "channels"], "channels", |api, request, _| {
        Box::pin(channels::get(api, request))
    }),
    signed(Method::GET, &["apps", APP, "channels", CHANNEL], "channel", |api, request, channel| {
        Box::pin(channel::get(api, request, channel))
    }),
    signed(Method::GET, &["apps", APP, "channels", CHANNEL, "users"], "channel_users", |api, request, channel| {
        Box::pin(channel_users::get(api, request, channel))
    }),
    signed(Method::GET, &["apps", APP, "channels", CHANNEL, "stats"], "channel_stats", |api, request, channel| {
        Box::pin(channel::get_stats(api, request, channel))
    }),
    signed(Method::POST, &["apps", APP, "channels", CHANNEL, "events"], "channel_events", |api, request, channel| {
        Box::pin(channel_events::post(api, request, channel))
    }),
    signed(Method::GET, &["apps", APP, "connections"], "connections", |api, request, _| {
        Box::pin(connections::get(api, request))
    }),
    signed(Method::POST, &["apps", APP, "users", USER, "terminate_connections"], TERMINATE, |api, request, user| {
        Box::pin(terminate_connections::post(api, request, user))
    }),
    // pusher-http-python leaves the app out of this path.
    signed(Method::POST, &["users", USER, "terminate_connections"], TERMINATE, |api, request, user| {
        Box::pin(terminate_connections::post(api, request, user))
    }),
];

const TERMINATE: &str = "terminate_connections";

/// A row of the route table.
struct Route {
    method: Method,
    pattern: &'static [&'static str],
    /// The value of the metric label `route`.
    label: &'static str,
    handler: Handler,
}

enum Handler {
    /// For requests without a signature.
    Unsigned(fn() -> Response),
    /// For signed requests. The last argument is the channel or the user in the path, or an empty text.
    Signed(SignedHandler),
}

type SignedHandler = for<'a> fn(&'a Api, &'a SignedRequest<'a>, &'a str) -> BoxFuture<'a, Result<Response, ApiError>>;

const fn unsigned(pattern: &'static [&'static str], label: &'static str, handler: fn() -> Response) -> Route {
    Route { method: Method::GET, pattern, label, handler: Handler::Unsigned(handler) }
}

const fn signed(
    method: Method,
    pattern: &'static [&'static str],
    label: &'static str,
    handler: SignedHandler,
) -> Route {
    Route { method, pattern, label, handler: Handler::Signed(handler) }
}

/// Returns the labels of all routes. Labels can repeat.
pub(crate) fn labels() -> impl Iterator<Item = &'static str> + Clone {
    ROUTES.iter().map(|route| route.label)
}

/// The percent-decoded segments of a path below the configured prefix.
pub(crate) struct Path<'a>(Vec<Cow<'a, str>>);

impl<'a> Path<'a> {
    /// Splits a path. A path without the prefix has no segments, so no route matches it. Health checks need no prefix.
    pub(crate) fn split(path: &'a str, prefix: &str) -> Self {
        let inner = if HEALTH_PATHS.contains(&path) { Some(path) } else { http::below(path, prefix) };
        let Some(inner) = inner.and_then(|inner| inner.strip_prefix('/')) else {
            return Self(Vec::new());
        };
        Self(inner.split('/').map(|segment| percent_decode_str(segment).decode_utf8_lossy()).collect())
    }

    pub(crate) fn segments(&self) -> Vec<&str> {
        self.0.iter().map(|segment| &**segment).collect()
    }
}

/// The route of a path, with the names in the path, which are not validated.
pub(crate) struct RouteMatch<'a> {
    route: &'static Route,
    pub(crate) app: Option<&'a str>,
    pub(crate) channel: Option<&'a str>,
    user: Option<&'a str>,
}

impl<'a> RouteMatch<'a> {
    /// Finds the route of a path.
    pub(crate) fn find(segments: &[&'a str]) -> Option<Self> {
        ROUTES.iter().find_map(|route| Self::of(route, segments))
    }

    fn of(route: &'static Route, segments: &[&'a str]) -> Option<Self> {
        if route.pattern.len() != segments.len() {
            return None;
        }
        let mut found = Self { route, app: None, channel: None, user: None };
        for (expected, segment) in route.pattern.iter().zip(segments) {
            match *expected {
                APP => found.app = Some(segment),
                CHANNEL => found.channel = Some(segment),
                USER => found.user = Some(segment),
                expected if expected == *segment => {}
                _ => return None,
            }
        }
        Some(found)
    }

    /// Returns the value of the metric label `route`.
    pub(crate) fn label(&self) -> &'static str {
        self.route.label
    }

    /// Handles a request to this route.
    ///
    /// # Errors
    /// [`ApiError`]. The order of the checks is: method, app, signature, body, and then those of the handler.
    pub(crate) async fn respond<B>(&self, api: &Api, head: &Parts, body: &mut Received<B>) -> Result<Response, ApiError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.check_method(&head.method)?;
        let handler = match &self.route.handler {
            Handler::Unsigned(handler) => return Ok(handler()),
            Handler::Signed(handler) => handler,
        };
        let app = self.app.map_or(AppName::AuthKey, AppName::Id);
        let request = SignedRequest::read(api, &app, head, body).await?;
        handler(api, &request, self.channel.or(self.user).unwrap_or_default()).await
    }

    fn check_method(&self, method: &Method) -> Result<(), ApiError> {
        let Route { method: allowed, handler, .. } = self.route;
        let (is_allowed, allow) = match handler {
            Handler::Unsigned(_) => (matches!(*method, Method::GET | Method::HEAD), "GET, HEAD"),
            Handler::Signed(_) if *allowed == Method::POST => (*method == Method::POST, "POST"),
            Handler::Signed(_) => (*method == Method::GET, "GET"),
        };
        if is_allowed { Ok(()) } else { Err(ApiError::MethodNotAllowed { allow }) }
    }
}
