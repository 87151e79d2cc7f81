use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::harness::World;

/// Notes every line of its thread: the target, then the fields.
struct Lines;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// To be called before anything is logged: whether a line is of interest is decided when it is met first, in whatever
/// test that is.
pub(super) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Lines).expect("nobody else listens"));
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
async fn lines_name_events_and_channels_and_never_hold_data_or_signatures() {
    let world = World::new();
    let body = r#"{"name":"e","data":"very private","channels":["a","b"]}"#;
    world.post("/apps/3/events", body).await.ok("{}");
    world.post("/apps/3/users/1/terminate_connections", "").await.ok("{}");
    let query = world.query(&hyper::Method::POST, "/apps/3/events", &[], body);
    world.send(hyper::Method::POST, &format!("/apps/3/batch_events?{query}"), body).await;
    let expected = [
        "activity message=Broadcasting [e] on channels [a, b] app.id=3",
        "activity message=Terminating the connections of a user app.id=3",
        r#"publisher message=request refused: request is not authentic endpoint="batch_events" cause="signature""#,
    ];
    assert_eq!(LINES.take(), expected);
}
