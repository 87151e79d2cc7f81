//! The route table, and what every route goes through.

use std::borrow::Cow;
use std::error::Error;

use bytes::Bytes;
use hyper::Method;
use hyper::body::Body;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use shared::serve::http::{self, HEALTH_PATHS, Response};

use crate::Api;
use crate::api_error::ApiError;
use crate::received::Received;
use crate::signed::SignedRequest;

mod batch_events;
mod channel;
mod channel_events;
mod channel_users;
mod channels;
mod connections;
mod events;
mod health;
mod terminate_connections;

/// The percent-decoded segments of a path, the configured prefix taken off.
pub(crate) struct Path<'a>(Vec<Cow<'a, str>>);

/// What a path names and the method it takes.
pub(crate) struct Route<'a> {
    method: Method,
    resource: Resource<'a>,
}

enum Resource<'a> {
    Health,
    App { app: AppName<'a>, endpoint: Endpoint<'a> },
}

/// How a request names its app.
pub(crate) enum AppName<'a> {
    /// By the id in its path.
    Id(&'a str),
    /// By its `auth_key` alone: pusher-http-python leaves the app out of the path when it terminates connections.
    AuthKey,
}

/// What one app has to offer; a channel or user is as in the path, not yet checked.
enum Endpoint<'a> {
    Events,
    BatchEvents,
    Channels,
    Channel(&'a str),
    ChannelUsers(&'a str),
    ChannelStats(&'a str),
    ChannelEvents(&'a str),
    Connections,
    TerminateConnections(&'a str),
}

impl<'a> Path<'a> {
    /// Splits a path. One that does not start with `prefix` has no segments, and no route. Health checks need no prefix.
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

impl<'a> Route<'a> {
    /// The table. Source: protocol reference 4.2 and 4.4.
    pub(crate) fn find(segments: &[&'a str]) -> Option<Self> {
        let (get, post) = (Method::GET, Method::POST);
        let (app, rest) = match *segments {
            ["up"] | [""] => return Some(Self { method: get, resource: Resource::Health }),
            ["apps", app, ref rest @ ..] => (AppName::Id(app), rest),
            ["users", _, "terminate_connections"] => (AppName::AuthKey, segments),
            _ => return None,
        };
        let (method, endpoint) = match *rest {
            ["events"] => (post, Endpoint::Events),
            ["batch_events"] => (post, Endpoint::BatchEvents),
            ["channels"] => (get, Endpoint::Channels),
            ["channels", name] => (get, Endpoint::Channel(name)),
            ["channels", name, "users"] => (get, Endpoint::ChannelUsers(name)),
            ["channels", name, "stats"] => (get, Endpoint::ChannelStats(name)),
            ["channels", name, "events"] => (post, Endpoint::ChannelEvents(name)),
            ["connections"] => (get, Endpoint::Connections),
            ["users", id, "terminate_connections"] => (post, Endpoint::TerminateConnections(id)),
            _ => return None,
        };
        Some(Self { method, resource: Resource::App { app, endpoint } })
    }

    /// The route as a metric label; all of them are in [`LABELS`].
    pub(crate) fn label(&self) -> &'static str {
        match &self.resource {
            Resource::Health => "health",
            Resource::App { endpoint, .. } => match endpoint {
                Endpoint::Events => "events",
                Endpoint::BatchEvents => "batch_events",
                Endpoint::Channels => "channels",
                Endpoint::Channel(_) => "channel",
                Endpoint::ChannelUsers(_) => "channel_users",
                Endpoint::ChannelStats(_) => "channel_stats",
                Endpoint::ChannelEvents(_) => "channel_events",
                Endpoint::Connections => "connections",
                Endpoint::TerminateConnections(_) => "terminate_connections",
            },
        }
    }

    /// The app and the channel that the path names, not yet checked.
    pub(crate) fn names(&self) -> (Option<&'a str>, Option<&'a str>) {
        let Resource::App { app, endpoint } = &self.resource else { return (None, None) };
        let app = match app {
            AppName::Id(id) => Some(*id),
            AppName::AuthKey => None,
        };
        let channel = match endpoint {
            Endpoint::Channel(name)
            | Endpoint::ChannelUsers(name)
            | Endpoint::ChannelStats(name)
            | Endpoint::ChannelEvents(name) => Some(*name),
            _ => None,
        };
        (app, channel)
    }

    fn check_method(&self, method: &Method) -> Result<(), ApiError> {
        let (allowed, allow): (&[Method], _) = match (&self.resource, self.method == Method::POST) {
            (Resource::Health, _) => (&[Method::GET, Method::HEAD], "GET, HEAD"),
            (_, true) => (&[Method::POST], "POST"),
            (_, false) => (&[Method::GET], "GET"),
        };
        if allowed.contains(method) { Ok(()) } else { Err(ApiError::MethodNotAllowed { allow }) }
    }
}

/// Every label that [`Route::label`] gives.
pub(crate) const LABELS: [&str; 10] = [
    "health",
    "events",
    "batch_events",
    "channels",
    "channel",
    "channel_users",
    "channel_stats",
    "channel_events",
    "connections",
    "terminate_connections",
];

/// Answers a request to a known path.
///
/// # Errors
/// [`ApiError`], in the order method, app, signature, body, and then what the endpoint finds.
pub(crate) async fn respond<B>(
    api: &Api,
    route: &Route<'_>,
    head: &Parts,
    body: &mut Received<B>,
) -> Result<Response, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    route.check_method(&head.method)?;
    let (app, endpoint) = match &route.resource {
        Resource::Health => return Ok(health::get()),
        Resource::App { app, endpoint } => (app, endpoint),
    };
    let request = SignedRequest::read(api, app, head, body).await?;
    match endpoint {
        Endpoint::Events => events::post(api, &request).await,
        Endpoint::BatchEvents => batch_events::post(api, &request).await,
        Endpoint::Channels => channels::get(api, &request).await,
        Endpoint::Channel(name) => channel::get(api, &request, name).await,
        Endpoint::ChannelUsers(name) => channel_users::get(api, &request, name).await,
        Endpoint::ChannelStats(name) => channel::get_stats(api, &request, name).await,
        Endpoint::ChannelEvents(name) => channel_events::post(api, &request, name).await,
        Endpoint::Connections => connections::get(api, &request).await,
        Endpoint::TerminateConnections(id) => terminate_connections::post(api, &request, id).await,
    }
}

/// A 200 with `body` as JSON.
fn ok(body: &impl serde::Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("answers are made of texts and numbers");
    shared::serve::http::json(hyper::StatusCode::OK, body)
}

/// A 200 that says no more: an object, since pusher-http-php has no type for anything else.
fn ok_empty() -> Response {
    shared::serve::http::json(hyper::StatusCode::OK, "{}")
}
