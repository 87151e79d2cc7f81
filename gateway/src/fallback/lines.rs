//! Encodes frames as the lines that pusher-js reads. Source: protocol reference 6.2.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;

use crate::reject::Farewell;

/// The line that opens a session. If the client already has a session, that session is lost.
pub(crate) const OPEN: &str = "o\n";

/// A heartbeat. The client of a stream answers it.
pub(crate) const HEARTBEAT: &str = "h\n";

/// An empty list of messages. The client does not answer it.
const ALIVE: &str = "a[]\n";

/// The end of a line of messages.
const ARRAY_END: &str = "]\n";

/// A buffer of lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    text: String,
    /// The UTF-16 units of `text`. The client counts these.
    units: usize,
    /// Whether the last line is an array to which messages can be added.
    is_array_open: bool,
}

/// The content of a frame from this server.
enum Content<'a> {
    Text(Cow<'a, str>),
    Ping,
    Pong,
    Close { code: u16, reason: Cow<'a, str> },
}

impl Lines {
    /// Adds a complete line.
    pub(crate) fn line(&mut self, line: &str) {
        self.close_array();
        self.push(line);
    }

    /// Adds the content of a WebSocket frame. Returns whether it is a close frame.
    pub(crate) fn frame(&mut self, frame: &[u8]) -> bool {
        match read(frame) {
            Content::Text(message) => {
                self.push(if self.is_array_open { "," } else { "a[" });
                self.is_array_open = true;
                self.push_json(&message);
            }
            Content::Ping => self.line(HEARTBEAT),
            Content::Pong => self.line(ALIVE),
            Content::Close { code, reason } => {
                self.line(&close(code, &reason));
                return true;
            }
        }
        false
    }

    /// Whether the buffer is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns the size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Returns the UTF-16 units, including the end of the last line.
    pub(crate) fn units(&self) -> usize {
        self.units + if self.is_array_open { ARRAY_END.len() } else { 0 }
    }

    /// Returns the lines and their UTF-16 units.
    pub(crate) fn finish(mut self) -> (Bytes, usize) {
        self.close_array();
        (self.text.into(), self.units)
    }

    fn close_array(&mut self) {
        if std::mem::take(&mut self.is_array_open) {
            self.push(ARRAY_END);
        }
    }

    fn push(&mut self, text: &str) {
        self.units += utf16_units(text);
        self.text.push_str(text);
    }

    fn push_json(&mut self, message: &str) {
        self.push(&json(message));
    }
}

/// Returns the last lines of a connection: the error message, which clients of protocol 5 need, and the close message.
pub(crate) fn farewell(farewell: &Farewell) -> String {
    let mut text = String::new();
    if let Some(announcement) = farewell.announcement() {
        // Writing to memory cannot fail.
        let _ = writeln!(text, "a[{}]", json(&announcement));
    }
    text.push_str(&close(farewell.code.code(), &farewell.message));
    text
}

fn close(code: u16, reason: &str) -> String {
    format!("c[{code},{}]\n", json(reason))
}

fn json(text: &str) -> String {
    serde_json::to_string(text).expect("a string can always be encoded as JSON")
}

fn utf16_units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// Parses a frame of `websocket::writer`. It is complete and not masked.
fn read(frame: &[u8]) -> Content<'_> {
    const PING: u8 = 9;
    const PONG: u8 = 10;
    const CLOSE: u8 = 8;
    let header_bytes = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    let payload = frame.get(header_bytes..).unwrap_or_default();
    match frame.first().map_or(0, |byte| byte & 0x0f) {
        PING => Content::Ping,
        PONG => Content::Pong,
        CLOSE => Content::Close {
            code: payload.first_chunk().map_or(1000, |code| u16::from_be_bytes(*code)),
            reason: String::from_utf8_lossy(payload.get(2..).unwrap_or_default()),
        },
        _ => Content::Text(String::from_utf8_lossy(payload)),
    }
}

#[cfg(test)]
mod tests {
    use shared::protocol::CloseCode;

    use super::*;
    use crate::websocket::writer;

    fn lines(frames: &[Bytes]) -> (String, usize) {
        let mut lines = Lines::default();
        for frame in frames {
            lines.frame(frame);
        }
        let (bytes, units) = lines.finish();
        (String::from_utf8(bytes.to_vec()).unwrap(), units)
    }

    #[test]
    fn an_open_line_is_counted_with_its_end() {
        let mut lines = Lines::default();
        assert_eq!(lines.units(), 0);
        for frame in [writer::text(b"a"), writer::text("\u{1f514}".as_bytes()), writer::pong(b"")] {
            lines.frame(&frame);
            let whole = lines.units();
            let mut copy = Lines { text: lines.text.clone(), ..lines };
            copy.close_array();
            assert_eq!((copy.units(), copy.text.encode_utf16().count()), (whole, whole));
        }
    }

    #[test]
    fn messages_share_a_line_and_other_frames_have_their_own() {
        let frames = [
            writer::text(br#"{"event":"a"}"#),
            writer::text("\n\u{1f514}".as_bytes()),
            writer::ping(),
            writer::text(b"b"),
            writer::pong(b""),
            writer::close(CloseCode::Reconnect, "the server \"drains\""),
        ];
        let expected = "a[\"{\\\"event\\\":\\\"a\\\"}\",\"\\n\u{1f514}\"]\nh\na[\"b\"]\na[]\nc[4200,\"the server \\\"drains\\\"\"]\n";
        let (text, units) = lines(&frames);
        assert_eq!(text, expected);
        assert_eq!(units, expected.encode_utf16().count());
    }

    #[test]
    fn a_message_of_any_length_is_encoded() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let message = "x".repeat(length);
            assert_eq!(lines(&[writer::text(message.as_bytes())]).0, format!("a[\"{message}\"]\n"));
        }
    }

    #[test]
    fn only_a_close_frame_is_reported_as_the_last() {
        let mut lines = Lines::default();
        assert!(!lines.frame(&writer::text(b"a")));
        assert!(!lines.frame(&writer::ping()));
        assert!(lines.frame(&writer::close(CloseCode::Normal, "")));
        assert_eq!(lines.finish().0, "a[\"a\"]\nh\nc[1000,\"\"]\n");
    }

    #[test]
    fn a_farewell_has_the_same_error_message_as_for_websockets() {
        let text = farewell(&Farewell::new(CloseCode::UnknownApp, "no such app"));
        let (announcement, close) = text.split_once('\n').unwrap();
        let messages: Vec<String> = serde_json::from_str(announcement.strip_prefix('a').unwrap()).unwrap();
        let message: serde_json::Value = serde_json::from_str(&messages[0]).unwrap();
        assert_eq!((&message["event"], &message["data"]["code"]), (&"pusher:error".into(), &4001.into()));
        assert_eq!(close, "c[4001,\"no such app\"]\n");
    }
}
