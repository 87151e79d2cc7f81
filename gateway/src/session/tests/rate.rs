//! The rate of subscriptions and sign-ins.

use std::time::Duration;

use super::*;

const BURST: u32 = 3 + REQUESTS_EXTRA;
const REFUSED: &str = "refused: rate limit of subscriptions and sign-ins exceeded";

/// Subscribes and unsubscribes in turn until a subscription is refused. Returns the number of accepted subscriptions.
fn turns(client: &mut Client) -> u32 {
    for turn in 0..=BURST {
        if client.subscribes("presence-a", Some(r#"{"user_id":"1"}"#)) == REFUSED {
            return turn;
        }
        client.enters("presence-a");
        assert_eq!(client.sends(&unsubscribe("presence-a")), "leave presence-a as 1");
    }
    panic!("no subscription is refused")
}

#[test]
fn alternating_subscriptions_are_limited_to_a_burst_and_a_rate() {
    let mut client = Client::new();
    assert_eq!(turns(&mut client), BURST);
    client.now += Duration::from_secs(1);
    assert_eq!(turns(&mut client), REQUESTS_PER_SECOND);
    client.now += Duration::from_secs(60);
    assert_eq!(turns(&mut client), BURST);
}

#[test]
fn an_unsubscribe_over_the_rate_takes_effect() {
    let mut client = Client::new();
    client.joins("a", None);
    assert!((0..=BURST).any(|_| client.subscribes("b", None) == REFUSED), "no subscription is refused");
    assert_eq!(client.sends(&unsubscribe("a")), "leave a");
    assert_eq!(client.subscribes("a", None), REFUSED);
    // The next subscription is allowed after one interval.
    client.now += Duration::from_secs(1) / REQUESTS_PER_SECOND;
    assert_eq!(client.subscribes("a", None), "enter a");
}

#[test]
fn a_reconnect_with_every_channel_and_a_sign_in_is_within_the_rate() {
    let mut client = Client::of(app(|app| app.limits.channels_per_connection = 1_000));
    for number in 0..1_000 {
        assert_eq!(client.subscribes(&format!("a-{number}"), None), format!("enter a-{number}"));
    }
    assert_ne!(client.signs_in(r#"{"id":"1"}"#), REFUSED);
    client.is_signed_in();
    assert_ne!(client.subscribes("#server-to-user-1", None), REFUSED);
}

#[test]
fn refused_requests_and_sign_ins_count() {
    let mut client = Client::new();
    for _ in 0..BURST / 3 {
        assert_ne!(client.sends(&subscribe("private-a", Some("none"), None)), REFUSED);
        assert_ne!(client.sends(&subscribe("not a name", None, None)), REFUSED);
        assert_ne!(client.sends(&sign_in("none", "{}")), REFUSED);
    }
    for _ in 0..BURST % 3 {
        client.subscribes("a", None);
    }
    assert_eq!(client.subscribes("a", None), REFUSED);
    assert_eq!(client.signs_in(r#"{"id":"1"}"#), REFUSED);
    // Pings and client events are not limited by this rate.
    assert_ne!(client.sends(&json!({"event": "pusher:ping", "data": {}})), REFUSED);
}
