//! `POST /apps/{id}/channels/{name}/events`: publishes one event, for libraries from before 2012.
//!
//! The query has the name of the event and the excluded connection. The body is the data.

use bytes::Bytes;
use hyper::StatusCode;
use shared::serve::http::{self, Response};

use crate::api::Api;
use crate::api_error::ApiError;
use crate::event::Event;
use crate::signed::SignedRequest;

pub(super) async fn post(api: &Api, request: &SignedRequest<'_>, channel: &str) -> Result<Response, ApiError> {
    let channel = request.channel(channel)?;
    let name = request.param("name").ok_or(ApiError::Missing("name"))?;
    let data = std::str::from_utf8(request.body()).map_err(|_| ApiError::BodyBroken)?;
    let limits = &request.app().limits;
    let event = Event::new(name, data.into(), vec![channel], request.param("socket_id"), limits)?;
    api.publish(request.app(), &[event]).await?;
    Ok(http::response(StatusCode::ACCEPTED, "application/json", Bytes::new()))
}
