//! The route table.

use std::borrow::Cow;
use std::error::Error;

use bytes::Bytes;
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

/// Defines the routes of signed requests from one table. Each row has the name, the method, the pattern, the metric
/// label and the handler. The last argument of a handler is the channel or the user in the path, or an empty text.
macro_rules! signed_routes {
    ($($name:ident: $method:ident $pattern:expr, $label:literal, $handler:expr;)*) => {
        /// The names of the routes of signed requests.
        #[derive(Clone, Copy)]
        enum SignedRoute {
            $($name,)*
        }

        static SIGNED: &[Route] = &[$(
            Route { method: Method::$method, pattern: &$pattern, label: $label, handler: Handler::Signed(SignedRoute::$name) },
        )*];

        impl SignedRoute {
            async fn respond(self, api: &Api, request: &SignedRequest<'_>, name: &str) -> Result<Response, ApiError> {
                match self {
                    $(Self::$name => $handler(api, request, name).await,)*
                }
            }
        }
    };
}

// Several patterns can share a label. Source: protocol reference 4.2 and 4.4.
signed_routes! {
    Events: POST ["apps", APP, "events"], "events", |api, request, _| events::post(api, request);
    BatchEvents: POST ["apps", APP, "batch_events"], "batch_events", |api, request, _| batch_events::post(api, request);
    Channels: GET ["apps", APP, "channels"], "channels", |api, request, _| channels::get(api, request);
    Channel: GET ["apps", APP, "channels", CHANNEL], "channel", channel::get;
    ChannelUsers: GET ["apps", APP, "channels", CHANNEL, "users"], "channel_users", channel_users::get;
    ChannelStats: GET ["apps", APP, "channels", CHANNEL, "stats"], "channel_stats", channel::get_stats;
    ChannelEvents: POST ["apps", APP, "channels", CHANNEL, "events"], "channel_events", channel_events::post;
    Connections: GET ["apps", APP, "connections"], "connections", |api, request, _| connections::get(api, request);
    Terminate: POST ["apps", APP, "users", USER, "terminate_connections"], "terminate_connections", terminate_connections::post;
    // pusher-http-python leaves the app out of this path.
    TerminateByKey: POST ["users", USER, "terminate_connections"], "terminate_connections", terminate_connections::post;
}

/// The routes of requests without a signature.
static UNSIGNED: &[Route] = &[
    Route { method: Method::GET, pattern: &["up"], label: "health", handler: Handler::Unsigned(health::get) },
    Route { method: Method::GET, pattern: &[""], label: "health", handler: Handler::Unsigned(health::get) },
];

/// A row of the route table.
struct Route {
    method: Method,
    pattern: &'static [&'static str],
    /// The value of the metric label `route`.
    label: &'static str,
    handler: Handler,
}

enum Handler {
    Unsigned(fn() -> Response),
    Signed(SignedRoute),
}

fn routes() -> impl Iterator<Item = &'static Route> + Clone {
    UNSIGNED.iter().chain(SIGNED)
}

/// Returns the labels of all routes. Labels can repeat.
pub(crate) fn labels() -> impl Iterator<Item = &'static str> + Clone {
    routes().map(|route| route.label)
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
        routes().find_map(|route| Self::of(route, segments))
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
        let signed = match self.route.handler {
            Handler::Unsigned(handler) => return Ok(handler()),
            Handler::Signed(signed) => signed,
        };
        let app = self.app.map_or(AppName::AuthKey, AppName::Id);
        let request = SignedRequest::read(api, &app, head, body).await?;
        signed.respond(api, &request, self.channel.or(self.user).unwrap_or_default()).await
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
