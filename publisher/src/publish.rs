//! Publishes events to the bus.

use std::fmt;
use std::time::Instant;

use shared::app::App;
use shared::cluster::bus::Message;
use shared::cluster::envelope::{Body, Envelope, Topic, unix_us};
use shared::excerpt::{NAME_MAX, logged};
use shared::protocol::ChannelName;
use shared::sync::lock;

use crate::api::Api;
use crate::api_error::ApiError;
use crate::event::Event;
use crate::limits::{CACHED_EVENT_TTL, LOGGED_CHANNELS_MAX};

mod frames;

impl Api {
    /// Publishes all events or none, in order.
    ///
    /// # Errors
    /// [`ApiError::RateLimited`] and [`ApiError::Bus`]. In both cases no event was published.
    pub(crate) async fn publish(&self, app: &App, events: &[Event<'_>]) -> Result<(), ApiError> {
        self.check_rate(app, events.len())?;
        let now_us = unix_us();
        let messages: Vec<Message> = events.iter().flat_map(|event| messages(event, app, now_us)).collect();
        if messages.is_empty() {
            return Ok(());
        }
        let count = messages.len();
        self.bus.publish(messages).await?;
        self.metrics.published(&app.id, count, events);
        for event in events {
            tracing::debug!(
                target: "activity",
                {
                    app.id = %app.id,
                    event.name = %logged(event.name(), NAME_MAX),
                    channel.name = %Listed(event.channels()),
                    event.bytes = event.data().len(),
                },
                "Event published"
            );
        }
        Ok(())
    }

    fn check_rate(&self, app: &App, events: usize) -> Result<(), ApiError> {
        let per_second = app.limits.events_per_second;
        let Some(allowance) = self.allowances.get(&app.id) else { return Ok(()) };
        if lock(allowance).take(events, per_second, Instant::now()) {
            return Ok(());
        }
        Err(ApiError::RateLimited { per_second })
    }
}

/// Returns one message for each channel, in order. The event is encoded here once per channel, and nowhere else.
fn messages(event: &Event<'_>, app: &App, published_at_us: u64) -> impl Iterator<Item = Message> {
    let frames = frames::encode(event.name(), event.data(), event.channels());
    event.channels().iter().zip(frames).map(move |(channel, frame)| Message {
        topic: Topic::new(&app.id, channel),
        envelope: Envelope {
            published_at_us,
            position: None,
            body: Body::Event { frame, except: event.except(), cached: false },
        },
        cache_for: channel.kind().is_cache().then_some(CACHED_EVENT_TTL),
        webhook: None,
    })
}

/// A list of channel names for a log line, formatted only if the line is written. Valid names need no escapes.
struct Listed<'a>(&'a [ChannelName]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().take(LOGGED_CHANNELS_MAX).enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{}", logged(name.as_str(), NAME_MAX))?;
        }
        match self.0.len().saturating_sub(LOGGED_CHANNELS_MAX) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}
