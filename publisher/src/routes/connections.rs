//! `GET /apps/{id}/connections`: returns the number of connections of the app in the cluster. An extension of Reverb.

use serde::Serialize;
use shared::serve::http::Response;

use crate::api::Api;
use crate::api_error::ApiError;
use crate::response::ok;
use crate::signed::SignedRequest;

#[derive(Serialize)]
struct Connections {
    connections: u64,
}

pub(super) async fn get(api: &Api, request: &SignedRequest<'_>) -> Result<Response, ApiError> {
    let connections = api.roster.connections(&request.app().id).await?;
    Ok(ok(&Connections { connections }))
}
