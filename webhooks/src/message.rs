//! The body of a webhook request, and its signature.

use serde::Serialize;
use shared::app::App;
use shared::cluster::envelope::unix_us;
use shared::cluster::webhook::WebhookEvent;

/// A signed request. Created for every attempt, because receivers refuse requests that are older than five minutes.
pub(super) struct Message {
    /// The bytes that are signed.
    pub(super) body: Vec<u8>,
    /// The signature in lower-case hex digits.
    pub(super) signature: String,
    /// The id of the event, if there is only one.
    pub(super) event_id: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    time_ms: u64,
    events: &'a [WebhookEvent],
}

impl Message {
    /// Encodes and signs `events` with the current time.
    pub(super) fn new(app: &App, events: &[WebhookEvent]) -> Self {
        let body = Body { time_ms: unix_us() / 1000, events };
        let body = serde_json::to_vec(&body).expect("strings and numbers can be encoded as JSON");
        let event_id = match events {
            [event] => Some(event.id.to_string()),
            _ => None,
        };
        Self { signature: app.secret.sign(&[&body]).to_hex(), body, event_id }
    }
}

#[cfg(test)]
mod tests;
