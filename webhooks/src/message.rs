//! One request: a body that tells of entries, and its signature.

use serde::Serialize;
use shared::app::App;
use shared::cluster::envelope::unix_us;
use shared::cluster::webhook::WebhookEvent;

/// What is sent. Made anew for every try: receivers refuse what is older than five minutes.
pub(super) struct Message {
    /// The exact bytes that are signed.
    pub(super) body: Vec<u8>,
    /// The signature as lower-case hex digits.
    pub(super) signature: String,
    /// The id of a single entry.
    pub(super) event_id: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    time_ms: u64,
    events: &'a [WebhookEvent],
}

impl Message {
    /// Tells of `events` now.
    pub(super) fn new(app: &App, events: &[WebhookEvent]) -> Self {
        let body = Body { time_ms: unix_us() / 1000, events };
        let body = serde_json::to_vec(&body).expect("texts and numbers are JSON");
        let event_id = match events {
            [event] => Some(event.id.to_string()),
            _ => None,
        };
        Self { signature: app.secret.sign(&[&body]).to_hex(), body, event_id }
    }
}

#[cfg(test)]
mod tests;
