//! `GET /apps/{id}/channels/{name}/users`: lists the users of a presence channel.

use serde::Serialize;
use serde_json::value::RawValue;
use shared::protocol::Member;
use shared::serve::http::Response;

use crate::api::Api;
use crate::api_error::ApiError;
use crate::response::ok;
use crate::signed::SignedRequest;

#[derive(Serialize)]
struct Users<'a> {
    users: Vec<User<'a>>,
}

#[derive(Serialize)]
struct User<'a> {
    /// A string, even if the application signed a number. pusher-http-go needs a string.
    id: &'a str,
    /// Absent if not requested; `null` if the application set no user info.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_info: Option<Option<&'a RawValue>>,
}

pub(super) async fn get(api: &Api, request: &SignedRequest<'_>, name: &str) -> Result<Response, ApiError> {
    let channel = request.channel(name)?;
    if !channel.kind().is_presence() {
        return Err(ApiError::Users);
    }
    // An extension of soketi.
    let with_info = request.param("with_user_info") == Some("1");
    let members = api.roster.members(&request.topic(&channel)).await?;
    let users = members
        .iter()
        .map(|member| User { id: member.user_id.as_str(), user_info: with_info.then(|| user_info(member)) });
    Ok(ok(&Users { users: users.collect() }))
}

fn user_info(member: &Member) -> Option<&RawValue> {
    serde_json::from_str(member.user_info.as_deref()?).ok()
}
