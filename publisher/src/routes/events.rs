//! `POST /apps/{id}/events`: publishes one event on one or more channels.

use shared::cluster::envelope::Topic;
use shared::serve::http::Response;

use crate::api::Api;
use crate::api_error::ApiError;
use crate::event::EventFields;
use crate::info::{self, ChannelList};
use crate::response::{ok, ok_empty};
use crate::signed::SignedRequest;

pub(super) async fn post(api: &Api, request: &SignedRequest<'_>) -> Result<Response, ApiError> {
    let fields: EventFields<'_> = request.json()?;
    let limits = &request.app().limits;
    let event = fields.event(fields.channels(limits)?, limits)?;
    let info = fields.info();
    if !info.counts() {
        api.publish(request.app(), &[event]).await?;
        return Ok(ok_empty());
    }
    let topics: Vec<Topic> = event.channels().iter().map(|channel| request.topic(channel)).collect();
    let occupancies = info::occupancies(&*api.roster, &topics).await;
    api.publish(request.app(), &[event]).await?;
    let attributes = topics.into_iter().zip(occupancies).map(|(topic, occupancy)| {
        let attributes = info.attributes(&topic.channel, occupancy);
        (topic.channel, attributes)
    });
    Ok(ok(&ChannelList { channels: attributes.collect() }))
}
