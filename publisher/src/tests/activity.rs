use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Once;

use bytesize::ByteSize;
use hyper::Method;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::harness::{World, app};

/// A subscriber that records the log lines of each thread: the target, then the fields.
struct Lines;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Installs the subscriber. Call it before the first log line: `tracing` decides once per call site whether it is
/// enabled.
pub(super) fn record_lines() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Lines).expect("no other subscriber is installed"));
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        matches!(metadata.target(), "activity" | "publisher")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        LINES.with_borrow_mut(|lines| lines.push(line.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn log_lines_contain_events_and_channels_but_no_data_or_signatures() {
    let world = World::new();
    let body = r#"{"name":"e","data":"very private","channels":["a","b"]}"#;
    world.post("/apps/3/events", body).await.ok("{}");
    world.post("/apps/3/users/1/terminate_connections", "").await.ok("{}");
    let query = world.query(&hyper::Method::POST, "/apps/3/events", &[], body);
    world.send(hyper::Method::POST, &format!("/apps/3/batch_events?{query}"), body).await;
    let expected = [
        "activity message=Event published app.id=3 event.name=e channel.name=a, b event.bytes=12".to_owned(),
        "activity message=Terminating the connections of a user app.id=3".to_owned(),
        refusal("batch_events", "3", "a, b", body.len(), 401, "request is not authentic: signature does not match"),
    ];
    assert_eq!(LINES.take(), expected);
}

fn refusal(route: &str, app: &str, channels: &str, bytes: usize, status: u16, reason: &str) -> String {
    let channels = if channels.is_empty() { String::new() } else { format!(" channel.name={channels:?}") };
    format!(
        "activity message=Request refused app.id={app} route={route:?}{channels} body.bytes={bytes} status={status} \
         reason={reason}"
    )
}

#[tokio::test]
async fn the_log_line_of_a_refusal_has_app_route_channels_size_and_reason() {
    let mut limited = app();
    limited.limits.event_bytes = ByteSize::b(5);
    limited.limits.events_per_second = 1;
    let world = World::with(limited, "");
    let event = r#"{"name":"e","data":"12345","channel":"a"}"#;
    let check = |line: String| assert_eq!(LINES.take(), [line]);
    LINES.take();

    world.send(Method::POST, "/apps/4/events", event).await;
    check(refusal("events", "4", "a", event.len(), 404, "app \"4\" is unknown"));
    world.send(Method::POST, "/nothing", event).await;
    check(format!(
        "activity message=Request refused route=\"unknown\" channel.name=\"a\" body.bytes={} status=404 reason=path is unknown",
        event.len()
    ));
    world.send(Method::PUT, "/apps/3/events", event).await;
    check(refusal("events", "3", "a", event.len(), 405, "method is not allowed, only POST"));
    let large = event.replace("12345", "123456");
    world.post("/apps/3/events", &large).await;
    check(refusal("events", "3", "a", large.len(), 413, "event data has 6 bytes, more than 5"));
    world.post("/apps/3/events", "{\"name\"").await;
    check(refusal("events", "3", "", 7, 400, "body is not valid JSON: EOF while parsing an object at line 1 column 7"));
    let batch = format!(r#"{{"batch":[{event},{}]}}"#, event.replace("\"a\"", "\"b\""));
    world.post("/apps/3/batch_events", &batch).await.ok("{}");
    LINES.take();
    world.post("/apps/3/batch_events", &batch).await;
    check(refusal("batch_events", "3", "a, b", batch.len(), 429, "more than 1 events per second"));
    world.get("/apps/3/channels/a%20b", &[]).await;
    let reason = "channel name \"a b\" is not valid: channel name has a character that is not allowed";
    check(refusal("channel", "3", "a b", 0, 400, reason));
}

#[tokio::test]
async fn a_request_to_a_disabled_app_is_logged() {
    let mut disabled = app();
    disabled.enabled = false;
    let event = r#"{"name":"e","data":"x","channels":["a","b"]}"#;
    let world = World::with(disabled, "");
    LINES.take();
    world.post("/apps/3/events", event).await;
    assert_eq!(LINES.take(), [refusal("events", "3", "a, b", event.len(), 403, "app is disabled")]);
}

#[tokio::test]
async fn names_from_requests_cannot_break_a_log_line() {
    let world = World::new();
    LINES.take();
    let channels: Vec<String> = (0..12).map(|number| format!("\"{number}\\nERROR forged\"")).collect();
    let body = format!(r#"{{"name":"e","data":"x","channels":[{}]}}"#, channels.join(","));
    world.send(Method::POST, "/apps/x%0AERROR%1b[31m%E2%80%AE/events", &body).await;
    world.post("/apps/3/events", r#"{"name":"a\u202e\u2028ERROR","data":"x","channel":"a"}"#).await.ok("{}");
    world.get("/apps/3/channels/a%0AERROR", &[]).await;
    let lines = LINES.take();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        assert!(!line.contains(|character: char| character.is_control()) && !line.contains('\u{202e}'), "{line:?}");
    }
    assert!(lines[0].contains("9\\\\nERROR forged, and 2 more"), "{}", lines[0]);
}
