use hyper::Method;
use prometheus::TextEncoder;
use shared::app::{AppId, Apps};
use shared::serve::telemetry::metrics::APP_LABELS_MAX;

use super::harness::{World, app};
use crate::metrics::Metrics;

#[tokio::test]
async fn requests_events_and_failures_are_counted() {
    let world = World::new();
    let event = r#"{"name":"e","data":"0123456789","channels":["a","b","c"]}"#;
    world.post("/apps/3/events", event).await.ok("{}");
    world.post("/apps/3/events", "{}").await.refused(400, "Missing required parameter: channel");
    world.send(Method::POST, "/apps/3/events", event).await.refused(401, "Missing parameter: auth_key");
    world.send(Method::GET, "/apps/4/channels", "").await.refused(404, "No matching application for ID [4].");
    world.send(Method::GET, "/nowhere", "").await.refused(404, "Not found");
    let text = TextEncoder::new().encode_to_string(&world.registry.gather()).unwrap();
    for line in [
        r#"carillon_publisher_requests_total{code="200",route="events"} 1"#,
        r#"carillon_publisher_requests_total{code="400",route="events"} 1"#,
        r#"carillon_publisher_requests_total{code="401",route="events"} 1"#,
        r#"carillon_publisher_requests_total{code="404",route="channels"} 1"#,
        r#"carillon_publisher_requests_total{code="404",route="unknown"} 1"#,
        r#"carillon_publisher_request_seconds_count{route="events"} 3"#,
        r#"carillon_events_published_total{app="3"} 3"#,
        "carillon_event_bytes_sum 10",
        "carillon_channels_per_event_sum 3",
        r#"carillon_publisher_auth_failures_total{reason="app"} 1"#,
        r#"carillon_publisher_auth_failures_total{reason="missing"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn counters_of_alerts_start_at_zero() {
    let world = World::new();
    let text = TextEncoder::new().encode_to_string(&world.registry.gather()).unwrap();
    for route in ["events", "batch_events", "channel_events", "unknown"] {
        for code in [200, 429, 500, 503] {
            let line = format!("carillon_publisher_requests_total{{code=\"{code}\",route=\"{route}\"}} 0");
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}

#[test]
fn apps_beyond_the_cap_share_one_label() {
    let apps = (0..=APP_LABELS_MAX).map(|index| {
        let mut app = app();
        app.id = AppId::from(format!("app-{index:03}").as_str());
        app.key = format!("key-{index}").as_str().into();
        app
    });
    let registry = shared::serve::telemetry::metrics::Registry::new();
    let metrics = Metrics::new(&registry, &Apps::new(apps).unwrap(), [].into_iter());
    metrics.published(&"app-000".into(), 1, &[]);
    metrics.published(&"app-100".into(), 2, &[]);
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(text.contains(r#"carillon_events_published_total{app="app-000"} 1"#), "{text}");
    assert!(text.contains(r#"carillon_events_published_total{app="other"} 2"#), "{text}");
    assert!(!text.contains(r#"app="app-100""#), "{text}");
}
