//! `GET /apps/{id}/channels`: lists the occupied channels.

use shared::serve::http::Response;

use crate::api::Api;
use crate::api_error::ApiError;
use crate::info::{ChannelList, Info};
use crate::response::ok;
use crate::signed::SignedRequest;

pub(super) async fn get(api: &Api, request: &SignedRequest<'_>) -> Result<Response, ApiError> {
    let prefix = request.param("filter_by_prefix").unwrap_or_default();
    let info = Info::parse(request.param("info"));
    if info.user_count && !prefix.starts_with("presence-") {
        return Err(ApiError::UserCountPrefix);
    }
    let occupied = api.roster.channels(&request.app().id, prefix).await?;
    let channels = occupied.into_iter().map(|(name, occupancy)| {
        let attributes = info.attributes(&name, Some(occupancy));
        (name, attributes)
    });
    Ok(ok(&ChannelList { channels: channels.collect() }))
}
