//! Verifies the signatures of requests. Handlers take a [`SignedRequest`], so they cannot run without a valid
//! signature.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Body;
use hyper::http::request::Parts;
use serde::Deserialize;
use shared::app::App;
use shared::auth::{RequestAuthError, SignedQuery};
use shared::cluster::envelope::{Topic, unix_us};
use shared::json::Object;
use shared::protocol::ChannelName;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use crate::api::Api;
use crate::api_error::ApiError;
use crate::limits::{BODY_PERMITS_MAX, BODY_TIMEOUT};
use crate::received::Received;

/// A request with a valid signature. Only [`SignedRequest::read`] creates one.
pub(crate) struct SignedRequest<'a> {
    app: Arc<App>,
    query: SignedQuery,
    body: Bytes,
    _budget: Option<SemaphorePermit<'a>>,
}

/// The way in which a request identifies its app.
pub(crate) enum AppName<'a> {
    /// By the id in its path.
    Id(&'a str),
    /// By its `auth_key` alone. pusher-http-python leaves the app out of the path to terminate connections.
    AuthKey,
}

impl<'a> SignedRequest<'a> {
    /// Finds the app, verifies the signature, and then reads the body.
    ///
    /// # Errors
    /// [`ApiError`]. The order of the checks is: app, signature, disabled app, size and time of the body, digest of the
    /// body. Requests without a valid signature therefore do not reveal that an app is disabled.
    pub(crate) async fn read<B>(
        api: &'a Api,
        app: &AppName<'_>,
        head: &Parts,
        body: &mut Received<B>,
    ) -> Result<Self, ApiError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let query = SignedQuery::parse(head.uri.query().unwrap_or_default());
        let app = match app {
            AppName::Id(id) => api.apps.by_id(id).ok_or_else(|| ApiError::unknown_app(id))?,
            AppName::AuthKey => {
                let key = query.param("auth_key").ok_or(RequestAuthError::Missing("auth_key"))?;
                api.apps.by_key(key).ok_or(RequestAuthError::UnknownKey)?
            }
        };
        let app = app.clone();
        query.verify_head(&app, head.method.as_str(), head.uri.path(), unix_us() / 1_000_000)?;
        if !app.enabled {
            return Err(ApiError::AppDisabled);
        }
        let max = app.limits.request_bytes();
        let budget = Self::reserve(api, &app, body.bytes_max(max)).await?;
        let body = body.read(max).await?;
        query.verify_body(&body)?;
        Ok(Self { app, query, body, _budget: budget })
    }

    /// Waits until the app's budget has room for another body.
    async fn reserve(api: &'a Api, app: &App, bytes: usize) -> Result<Option<SemaphorePermit<'a>>, ApiError> {
        let Some(budget) = api.body_budgets.get(&app.id) else { return Ok(None) };
        let bytes = u32::try_from(bytes.min(BODY_PERMITS_MAX)).unwrap_or(u32::MAX);
        match timeout(BODY_TIMEOUT, budget.acquire_many(bytes)).await {
            Ok(permit) => Ok(permit.ok()),
            Err(_) => Err(ApiError::TooManyBodies),
        }
    }

    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// Returns the first value of a query parameter. `name`: in lower case.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.param(name)
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Parses the body as a JSON object.
    pub(crate) fn json<'b, T: Deserialize<'b>>(&'b self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map(|Object(value)| value).map_err(ApiError::Json)
    }

    /// Validates the name of a channel.
    pub(crate) fn channel(&self, name: &str) -> Result<ChannelName, ApiError> {
        let max = self.app.limits.channel_name_length;
        ChannelName::parse(name, max).map_err(|source| ApiError::channel_name(name, source))
    }

    pub(crate) fn topic(&self, channel: &ChannelName) -> Topic {
        Topic::new(&self.app.id, channel)
    }
}
