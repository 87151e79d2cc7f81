//! `GET /apps/{id}/connections`: how many sockets the app has open, cluster-wide. Reverb's addition.

use serde::Serialize;
use shared::serve::http::Response;

use super::ok;
use crate::Api;
use crate::api_error::ApiError;
use crate::signed::SignedRequest;

#[derive(Serialize)]
struct Connections {
    connections: u64,
}

pub(super) async fn get(api: &Api, request: &SignedRequest<'_>) -> Result<Response, ApiError> {
    let connections = api.roster.connections(&request.app().id).await?;
    Ok(ok(&Connections { connections }))
}
