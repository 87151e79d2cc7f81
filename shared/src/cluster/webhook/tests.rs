use serde_json::json;

use super::*;
use crate::app::{Apps, Label, LabelError};
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
        only: None,
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
fn every_kind_is_told_in_the_form_that_libraries_read() {
    for (occurrence, mut expected) in occurrences() {
        expected["channel"] = "presence-room".into();
        expected["id"] = "shop-7-1700000000123-4".into();
        assert_eq!(serde_json::to_value(event("presence-room", occurrence)).unwrap(), expected);
    }
}

#[test]
fn every_kind_survives_its_way_through_a_stream() {
    for (occurrence, _) in occurrences() {
        let written = event("presence-room", occurrence);
        let fields = |pairs: Vec<(&'static str, String)>| -> event::Fields {
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let first = fields(written.occurrence.fields(&written.channel));
        assert_eq!(WebhookEvent::read(&"shop".into(), 7, written.stream_id.clone(), &first).unwrap(), written);
        let again = fields(written.fields_for(&"example.org:443-0".into()));
        let read = WebhookEvent::read(&"shop".into(), 7, StreamId::new("1800000000000-0"), &again).unwrap();
        assert_eq!((read.id, read.only.as_deref()), (written.id, Some("example.org:443-0")));
        assert_eq!(read.at_ms, 1_800_000_000_000, "its time begins anew");
    }
}

#[test]
fn endpoints_choose_kinds_and_channels() {
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
        assert!(all.wants(&event));
        assert_eq!(some.wants(&event), expected, "{event:?}");
    }
}

#[test]
fn an_app_wants_what_one_of_its_endpoints_wants() {
    let app = |webhooks: serde_json::Value| {
        serde_json::from_value(json!({ "id": "a", "key": "k", "secret": "s", "webhooks": webhooks })).unwrap()
    };
    let some = app(json!([
        { "url": "http://example.org/", "event_types": ["channel_vacated"] },
        { "url": "http://example.org/", "event_types": ["cache_miss"] }
    ]));
    assert_eq!(WebhookKinds::of(&some).to_string(), "VM");
    assert_eq!(WebhookKinds::of(&app(json!([{ "url": "http://example.org/" }]))).to_string(), "OVAREMC");
    assert!(WebhookKinds::of(&app(json!([]))).is_empty());
    let event_types = EventTypes::new(&Apps::new([some]).unwrap());
    assert!(event_types.of(&"a".into()).has(WebhookKind::CacheMiss) && event_types.of(&"b".into()).is_empty());
}

fn labels_of(endpoints: &[Endpoint]) -> Vec<String> {
    Endpoint::labelled(endpoints).into_iter().map(|(label, _)| label.to_string()).collect()
}

#[test]
fn a_label_is_made_of_the_whole_url_and_hides_its_secrets() {
    let urls = [
        "https://example.org/a?token=x",
        "https://example.org/a?token=y",
        "https://example.org/a",
        "https://example.org/b",
        "http://example.org/a",
        "https://user:pass@example.org/a",
        "https://user:pass@example.org/a?token=x",
    ];
    let endpoints: Vec<Endpoint> = urls.iter().map(|url| endpoint(json!({ "url": url }))).collect();
    let labels = labels_of(&endpoints);
    for (number, label) in labels.iter().enumerate() {
        assert!(label.starts_with("example.org:"), "{label}");
        assert!(!label.contains("token") && !label.contains("pass"), "{label}");
        assert_eq!(labels.iter().filter(|other| *other == label).count(), 1, "{label} of {}", urls[number]);
    }
    // Whatever stands before an endpoint, or behind it, its label stays.
    for number in 0..endpoints.len() {
        assert_eq!(labels_of(&endpoints[number..])[0], labels[number]);
    }
    assert_eq!(labels[2], "example.org:443-1ced2904", "it is the same in every release");
    assert_eq!(labels[0], "example.org:443-16d82822", "it is the same in every release");
    assert!(Endpoint::check_labels(&endpoints).is_empty());
}

#[test]
fn a_configured_label_comes_first_and_endpoints_of_one_url_need_it() {
    let of = |more: serde_json::Value| {
        let mut all = json!({ "url": "https://example.org/a" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        endpoint(all)
    };
    let named = [of(json!({ "label": "billing" })), of(json!({ "label": "search-2" })), of(json!({}))];
    assert_eq!(labels_of(&named)[..2], ["billing", "search-2"]);
    assert!(Endpoint::check_labels(&named).is_empty());
    let twice = [of(json!({})), of(json!({ "event_types": ["cache_miss"] }))];
    assert!(matches!(&Endpoint::check_labels(&twice)[..], [(1, LabelError::Taken(_))]));
    let same = [of(json!({ "label": "a" })), of(json!({ "label": "a" }))];
    assert_eq!(Endpoint::check_labels(&same), [(1, LabelError::Taken(Label::from("a")))]);
    for label in ["", "a b", "a\nb", "ü", &"x".repeat(65)] {
        assert_eq!(Endpoint::check_labels(&[of(json!({ "label": label }))]), [(0, LabelError::Form)], "{label:?}");
    }
}
