use shared::cluster::webhook::{EventId, Occurrence, StreamId};
use shared::protocol::ChannelName;

use super::*;

fn event(number: u32) -> WebhookEvent {
    let stream_id = StreamId::new(format!("1700000000000-{number}"));
    WebhookEvent {
        id: EventId::new(&"shop".into(), 0, &stream_id),
        at_ms: 1_700_000_000_000,
        stream_id,
        replay_to: None,
        channel: ChannelName::parse("room", 200).unwrap(),
        occurrence: Occurrence::ChannelOccupied,
    }
}

#[test]
fn the_signature_is_over_the_exact_bytes() {
    let app: App = serde_json::from_str(r#"{ "id": "1", "key": "k", "secret": "s" }"#).unwrap();
    let message = Message::new(&app, &[event(1), event(2)]);
    assert_eq!(message.signature, app.secret.sign(&[&message.body]).to_hex());
    let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(body["events"].as_array().map(Vec::len), Some(2));
    assert_eq!(message.event_id, None, "two events have no common id");
    assert_eq!(Message::new(&app, &[event(1)]).event_id.as_deref(), Some("shop-0-1700000000000-1"));
}

#[test]
fn the_time_of_a_message_is_the_current_time() {
    let app: App = serde_json::from_str(r#"{ "id": "1", "key": "k", "secret": "s" }"#).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&Message::new(&app, &[event(1)]).body).unwrap();
    let age_ms = (unix_us() / 1000).abs_diff(body["time_ms"].as_u64().unwrap());
    assert!(age_ms < 60_000, "{age_ms} ms");
}
