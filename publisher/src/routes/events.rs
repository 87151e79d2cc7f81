//! `POST /apps/{id}/events`: one event on one or many channels.

use shared::envelope::Topic;
use shared::http::Answer;

use super::{ok, ok_empty};
use crate::Api;
use crate::api_error::ApiError;
use crate::event::EventFields;
use crate::info::{ChannelList, Info};
use crate::signed::SignedRequest;

pub(super) async fn post(api: &Api, request: &SignedRequest) -> Result<Answer, ApiError> {
    let fields: EventFields<'_> = request.json()?;
    let limits = &request.app().limits;
    let event = fields.event(fields.channels(limits)?, limits)?;
    let info = fields.info();
    info.check(event.channels())?;
    if !info.counts() {
        api.publish(request.app(), &[event]).await?;
        return Ok(ok_empty());
    }
    let topics: Vec<Topic> = event.channels().iter().map(|channel| request.topic(channel)).collect();
    // Asked first: were it asked last and failed, the caller would publish again what everyone has heard.
    let occupancies = api.roster.occupancy(&topics).await?;
    api.publish(request.app(), &[event]).await?;
    let attributes = topics.into_iter().zip(occupancies).map(|(topic, occupancy)| {
        let attributes = Info::attributes(info, &topic.channel, occupancy);
        (topic.channel, attributes)
    });
    Ok(ok(&ChannelList { channels: attributes.collect() }))
}
