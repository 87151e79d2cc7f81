//! Handing events to the bus.

use std::fmt;

use shared::app::App;
use shared::bus::Message;
use shared::envelope::unix_us;
use shared::protocol::ChannelName;

use crate::Api;
use crate::api_error::ApiError;
use crate::event::Event;

impl Api {
    /// Publishes all events or none, in order.
    ///
    /// # Errors
    /// [`ApiError::Bus`] when nothing was published.
    pub(crate) async fn publish(&self, app: &App, events: &[Event<'_>]) -> Result<(), ApiError> {
        let now_us = unix_us();
        let messages: Vec<Message> = events.iter().flat_map(|event| event.messages(&app.id, now_us)).collect();
        if messages.is_empty() {
            return Ok(());
        }
        let count = messages.len();
        self.bus.publish(messages).await?;
        self.metrics.published(&app.id, count, events);
        for event in events {
            tracing::debug!(
                target: "activity",
                { app.id = %app.id },
                "Broadcasting [{}] on channels [{}]",
                event.name(),
                Listed(event.channels())
            );
        }
        Ok(())
    }
}

/// Names with commas between them; costs nothing unless it is printed.
struct Listed<'a>(&'a [ChannelName]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{name}")?;
        }
        Ok(())
    }
}
