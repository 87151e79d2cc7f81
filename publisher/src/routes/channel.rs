//! `GET /apps/{id}/channels/{name}`: returns the state of one channel. `/stats` is the path that libraries used until
//! 2012.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::cluster::envelope::{CachedEvent, Topic};
use shared::cluster::roster::Occupancy;
use shared::json::Object;
use shared::serve::http::Response;

use crate::api::Api;
use crate::api_error::ApiError;
use crate::info::{Attributes, Info};
use crate::response::ok;
use crate::signed::SignedRequest;
use crate::text::Text;

#[derive(Serialize)]
struct Channel<'a> {
    occupied: bool,
    #[serde(flatten)]
    attributes: Attributes,
    /// Absent if not requested; `null` if requested and the channel has no cached event.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Option<Cache<'a>>>,
}

#[derive(Serialize)]
struct Cache<'a> {
    data: &'a str,
    /// The remaining time in the cache in whole seconds, at least 1.
    ttl: u64,
}

/// The part of a cached event's JSON that the response contains.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    data: Text<'a>,
}

pub(super) async fn get(api: &Api, request: &SignedRequest<'_>, name: &str) -> Result<Response, ApiError> {
    describe(api, request, name, Info::parse(request.param("info"))).await
}

pub(super) async fn get_stats(api: &Api, request: &SignedRequest<'_>, name: &str) -> Result<Response, ApiError> {
    describe(api, request, name, Info::default()).await
}

async fn describe(api: &Api, request: &SignedRequest<'_>, name: &str, info: Info) -> Result<Response, ApiError> {
    let channel = request.channel(name)?;
    info.check(&channel)?;
    let topic = request.topic(&channel);
    let occupancy = occupancy(api, &topic).await?;
    let cached = if info.cache && channel.kind().is_cache() { api.roster.cached(&topic).await? } else { None };
    let frame = cached.as_ref().and_then(|cached| read_frame(&topic, cached));
    let cache = cached
        .as_ref()
        .zip(frame.as_ref())
        .map(|(cached, frame)| Cache { data: &frame.data, ttl: seconds(cached.ttl) });
    Ok(ok(&Channel {
        occupied: occupancy.subscriptions > 0,
        attributes: info.attributes(&channel, Some(occupancy)),
        cache: info.cache.then_some(cache),
    }))
}

async fn occupancy(api: &Api, topic: &Topic) -> Result<Occupancy, ApiError> {
    let all = api.roster.occupancy(std::slice::from_ref(topic)).await?;
    Ok(all.first().copied().unwrap_or_default())
}

/// Parses a cached event. An invalid one is treated as absent.
fn read_frame<'a>(topic: &Topic, cached: &'a CachedEvent) -> Option<Frame<'a>> {
    let frame = serde_json::from_slice(&cached.frame).ok().map(|Object(frame)| frame);
    if frame.is_none() {
        tracing::warn!(
            app.id = %topic.app,
            channel.name = %topic.channel,
            "cached event is not a valid message; treating it as absent"
        );
    }
    frame
}

fn seconds(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)
}
