//! `POST /apps/{id}/users/{user_id}/terminate_connections`: closes all connections that are signed in as the user.

use shared::cluster::bus::Message;
use shared::cluster::envelope::{Body, Envelope, unix_us};
use shared::protocol::ChannelName;
use shared::serve::http::Response;

use crate::api::Api;
use crate::api_error::ApiError;
use crate::response::ok_empty;
use crate::signed::SignedRequest;

/// Ignores the body: libraries send `{}` or nothing. Succeeds if the user is not signed in.
pub(super) async fn post(api: &Api, request: &SignedRequest<'_>, user_id: &str) -> Result<Response, ApiError> {
    let app = request.app();
    let channel = ChannelName::of_user(user_id, app.limits.user_id_length).map_err(ApiError::UserId)?;
    let envelope = Envelope { published_at_us: unix_us(), position: None, body: Body::Terminate };
    api.bus.publish(vec![Message { topic: request.topic(&channel), envelope, cache_for: None, webhook: None }]).await?;
    tracing::debug!(target: "activity", { app.id = %app.id }, "Terminating the connections of a user");
    Ok(ok_empty())
}
