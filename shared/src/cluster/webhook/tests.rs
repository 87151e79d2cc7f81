use serde_json::json;

use super::*;
use crate::app::{App, Apps, Endpoint, Label, WebhookKind};
use crate::protocol::{ChannelName, UserId};

mod queues;

fn endpoint(value: serde_json::Value) -> Endpoint {
    serde_json::from_value(value).unwrap()
}

fn event(channel: &str, occurrence: Occurrence) -> WebhookEvent {
    let stream_id = StreamId::new("1700000000123-4");
    WebhookEvent {
        id: EventId::new(&"shop".into(), 7, &stream_id),
        at_ms: 1_700_000_000_123,
        stream_id,
        replay_to: None,
        channel: ChannelName::parse(channel, 200).unwrap(),
        occurrence,
    }
}

fn occurrences() -> Vec<(Occurrence, serde_json::Value)> {
    let user = UserId::from("ana\n\"7\"");
    let event = |user_id| Occurrence::ClientEvent {
        event: "client-x".into(),
        data: "{\"a\":1}".into(),
        socket_id: "12.34".parse().unwrap(),
        user_id,
    };
    vec![
        (Occurrence::ChannelOccupied, json!({ "name": "channel_occupied" })),
        (Occurrence::ChannelVacated, json!({ "name": "channel_vacated" })),
        (Occurrence::MemberAdded(user.clone()), json!({ "name": "member_added", "user_id": "ana\n\"7\"" })),
        (Occurrence::MemberRemoved(user.clone()), json!({ "name": "member_removed", "user_id": "ana\n\"7\"" })),
        (
            event(None),
            json!({ "name": "client_event", "event": "client-x", "data": "{\"a\":1}", "socket_id": "12.34" }),
        ),
        (
            event(Some(user)),
            json!({
                "name": "client_event", "event": "client-x", "data": "{\"a\":1}", "socket_id": "12.34",
                "user_id": "ana\n\"7\""
            }),
        ),
        (Occurrence::CacheMiss, json!({ "name": "cache_miss" })),
        (Occurrence::SubscriptionCount(17), json!({ "name": "subscription_count", "subscription_count": 17 })),
    ]
}

#[test]
fn every_kind_has_the_json_that_libraries_expect() {
    for (occurrence, mut expected) in occurrences() {
        expected["channel"] = "presence-room".into();
        expected["id"] = "shop-7-1700000000123-4".into();
        assert_eq!(serde_json::to_value(event("presence-room", occurrence)).unwrap(), expected);
    }
}

#[test]
fn every_kind_can_be_written_to_a_stream_and_read_back() {
    for (occurrence, _) in occurrences() {
        let written = event("presence-room", occurrence);
        let fields = |pairs: Vec<(&'static str, String)>| -> event::Fields {
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let first = fields(written.occurrence.fields(&written.channel));
        assert_eq!(WebhookEvent::read(&"shop".into(), 7, written.stream_id.clone(), &first).unwrap(), written);
        let again = fields(written.fields_for(&"example.org:443-0".into()));
        let read = WebhookEvent::read(&"shop".into(), 7, StreamId::new("1800000000000-0"), &again).unwrap();
        assert_eq!((read.id, read.replay_to.as_deref()), (written.id, Some("example.org:443-0")));
        assert_eq!(read.at_ms, 1_800_000_000_000, "a replay has a new time");
    }
}

#[test]
fn endpoints_receive_the_configured_kinds_and_channels() {
    let all = endpoint(json!({ "url": "http://example.org/" }));
    let some = endpoint(json!({
        "url": "http://example.org/",
        "event_types": ["channel_occupied", "client_event"],
        "filter": { "channel_name_starts_with": "room-", "channel_name_ends_with": "-7", "channel_pattern": "^[^x]*$" }
    }));
    let cases = [
        ("room-7", Occurrence::ChannelOccupied, true),
        ("room-1-7", Occurrence::ChannelOccupied, true),
        ("room-x-7", Occurrence::ChannelOccupied, false),
        ("room-8", Occurrence::ChannelOccupied, false),
        ("hall-7", Occurrence::ChannelOccupied, false),
        ("room-7", Occurrence::ChannelVacated, false),
    ];
    for (channel, occurrence, expected) in cases {
        let event = event(channel, occurrence);
        assert!(event.is_for(&all));
        assert_eq!(event.is_for(&some), expected, "{event:?}");
    }
}

#[test]
fn an_app_has_the_kinds_of_all_its_endpoints() {
    let app = |webhooks: serde_json::Value| -> App {
        serde_json::from_value(json!({ "id": "a", "key": "k", "secret": "s", "webhooks": webhooks })).unwrap()
    };
    let some = app(json!([
        { "url": "http://example.org/", "event_types": ["channel_vacated"] },
        { "url": "http://example.org/", "event_types": ["cache_miss"] }
    ]));
    assert_eq!(some.webhook_kinds().to_string(), "VM");
    assert_eq!(app(json!([{ "url": "http://example.org/" }])).webhook_kinds().to_string(), "OVAREMC");
    assert!(app(json!([])).webhook_kinds().is_empty());
    let event_types = EventTypes::new(&Apps::new([some]).unwrap());
    assert!(event_types.of(&"a".into()).has(WebhookKind::CacheMiss) && event_types.of(&"b".into()).is_empty());
}
