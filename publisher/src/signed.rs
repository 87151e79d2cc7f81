//! The extractor that checks signatures: a handler that takes a [`SignedRequest`] cannot forget to.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::http::request::Parts;
use serde::Deserialize;
use shared::app::{App, Apps};
use shared::auth::{RequestAuthError, SignedQuery};
use shared::envelope::{Topic, unix_us};
use shared::protocol::ChannelName;

use crate::api_error::ApiError;
use crate::routes::AppName;

/// A request by the holder of an app's secret. There is no other way to make one than [`SignedRequest::read`].
pub(crate) struct SignedRequest {
    app: Arc<App>,
    query: SignedQuery,
    body: Bytes,
}

/// A body must be here within this time: a third of the 30 s after which pusher-http-php gives up.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

impl SignedRequest {
    /// Finds the app, checks the signature and reads the body: only who knows the secret can make this server keep one.
    ///
    /// # Errors
    /// [`ApiError`], in the order app, signature, disabled app, size and time of the body, digest of the body. So only
    /// those who know the secret learn that an app is switched off.
    pub(crate) async fn read<B>(apps: &Apps, app: &AppName<'_>, head: &Parts, body: B) -> Result<Self, ApiError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let query = SignedQuery::parse(head.uri.query().unwrap_or_default());
        let app = match app {
            AppName::Id(id) => apps.by_id(id).ok_or_else(|| ApiError::unknown_app(id))?,
            AppName::AuthKey => {
                let key = query.param("auth_key").ok_or(RequestAuthError::Missing("auth_key"))?;
                apps.by_key(key).ok_or(RequestAuthError::UnknownKey)?
            }
        };
        let app = app.clone();
        query.verify_head(&app, head.method.as_str(), head.uri.path(), unix_us() / 1_000_000)?;
        if !app.enabled {
            return Err(ApiError::AppDisabled);
        }
        let body = read_body(body, app.limits.request_bytes()).await?;
        query.verify_body(&body)?;
        Ok(Self { app, query, body })
    }

    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// The first value of a query parameter, by its lower-case name.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.param(name)
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as JSON.
    pub(crate) fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(ApiError::Json)
    }

    /// A channel of the app, by a name that is not yet checked.
    pub(crate) fn channel(&self, name: &str) -> Result<ChannelName, ApiError> {
        let max = self.app.limits.channel_name_length;
        ChannelName::parse(name, max).map_err(|source| ApiError::channel_name(name, source))
    }

    pub(crate) fn topic(&self, channel: &ChannelName) -> Topic {
        Topic::new(&self.app.id, channel)
    }
}

/// Reads a whole body of at most `max` bytes. One that announces more is refused before its first byte.
async fn read_body<B>(body: B, max: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max {
        return Err(ApiError::BodyTooLarge { max });
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max).collect());
    match read.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::BodyTooLarge { max }),
        Ok(Err(_)) => Err(ApiError::BodyBroken),
        Err(_) => Err(ApiError::BodyTimeout),
    }
}
