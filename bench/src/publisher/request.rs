//! Encodes signed HTTP requests.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use shared::app::App;
use shared::auth::request::signed_query;

use crate::payload::Payload;
use crate::plan::{EVENT, Planned, channel_name};

/// The encoder of one connection. It reuses its buffers.
pub(crate) struct Requests {
    app: App,
    data_bytes: usize,
    body: String,
    request: String,
}

impl Requests {
    /// `data_bytes` is the length of each event's data.
    pub(crate) fn new(app: App, data_bytes: usize) -> Self {
        Self { app, data_bytes, body: String::new(), request: String::new() }
    }

    /// Encodes a request with one event, or with a batch. The events have the send time `now_ns`.
    pub(crate) fn request(&mut self, events: &[Planned], now_ns: u64) -> &[u8] {
        self.body.clear();
        let endpoint = match events {
            [event] => {
                self.write_event(*event, now_ns);
                "events"
            }
            batch => {
                self.body.push_str(r#"{"batch":["#);
                for (index, event) in batch.iter().enumerate() {
                    if index > 0 {
                        self.body.push(',');
                    }
                    self.write_event(*event, now_ns);
                }
                self.body.push_str("]}");
                "batch_events"
            }
        };
        let path = format!("/apps/{}/{endpoint}", self.app.id);
        let query = signed_query(&self.app, "POST", &path, &[], self.body.as_bytes(), unix_s());
        self.request.clear();
        // Writing to a `String` cannot fail.
        let _ = write!(
            self.request,
            "POST {path}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
            self.body.len(),
            self.body
        );
        self.request.as_bytes()
    }

    fn write_event(&mut self, event: Planned, now_ns: u64) {
        let channel = channel_name(event.channel);
        let _ = write!(self.body, r#"{{"name":"{EVENT}","channel":"{channel}","data":""#);
        Payload { channel: event.channel as u64, sequence: event.sequence, sent_ns: now_ns }
            .write(self.data_bytes, &mut self.body);
        self.body.push_str("\"}");
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
