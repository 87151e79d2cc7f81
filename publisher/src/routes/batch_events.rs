//! `POST /apps/{id}/batch_events`: publishes several events, each on one channel. All are accepted or all are refused.

use serde::{Deserialize, Serialize};
use shared::cluster::envelope::Topic;
use shared::json::Object;
use shared::serve::http::Response;

use crate::api::Api;
use crate::api_error::ApiError;
use crate::event::{Event, EventFields};
use crate::info::{self, Attributes, Info};
use crate::response::{ok, ok_empty};
use crate::signed::SignedRequest;

#[derive(Deserialize)]
struct BatchRequest<'a> {
    #[serde(borrow)]
    batch: Option<Vec<Object<EventFields<'a>>>>,
}

#[derive(Serialize)]
struct BatchResponse {
    /// One entry per event, in order. It is empty if no attributes were requested. pusher-http-go needs an array.
    batch: Vec<Attributes>,
}

pub(super) async fn post(api: &Api, request: &SignedRequest<'_>) -> Result<Response, ApiError> {
    let body: BatchRequest<'_> = request.json()?;
    let batch = body.batch.ok_or(ApiError::Missing("batch"))?;
    let limits = &request.app().limits;
    if batch.len() > limits.batch {
        return Err(ApiError::BatchTooLarge { given: batch.len(), max: limits.batch });
    }
    let mut events: Vec<Event<'_>> = Vec::with_capacity(batch.len());
    let mut infos: Vec<Info> = Vec::with_capacity(batch.len());
    for Object(fields) in &batch {
        events.push(fields.event(vec![fields.channel(limits)?], limits)?);
        infos.push(fields.info());
    }
    if !infos.iter().any(|info| info.counts()) {
        api.publish(request.app(), &events).await?;
        return Ok(ok_empty());
    }
    let topics: Vec<Topic> = events.iter().flat_map(Event::channels).map(|channel| request.topic(channel)).collect();
    let occupancies = info::occupancies(&*api.roster, &topics).await;
    api.publish(request.app(), &events).await?;
    let attributes = infos.iter().zip(&topics).zip(occupancies);
    Ok(ok(&BatchResponse {
        batch: attributes.map(|((info, topic), occupancy)| info.attributes(&topic.channel, occupancy)).collect(),
    }))
}
