use super::*;

fn claimed(answered_at_ms: u64, oldest_report_at_ms: u64) -> Claimed {
    Claimed { admitted: 0, answered_at_ms, oldest_report_at_ms }
}

#[test]
fn a_refusal_is_final_only_if_all_counts_are_settled() {
    let settling_ms = u64::try_from(SETTLING.as_millis()).unwrap();
    let at_ms = 1_000_000;
    let settled_ms = at_ms + settling_ms;
    assert!(is_final(at_ms, claimed(settled_ms, settled_ms)));
    assert!(
        !is_final(at_ms, claimed(settled_ms - 1, settled_ms - 1)),
        "the end of a connection may not be noticed yet"
    );
    assert!(!is_final(at_ms, claimed(settled_ms + 60_000, settled_ms - 1)), "a node has not reported since");
    assert!(!is_final(at_ms, claimed(settled_ms, 0)), "a node has never reported");
    assert!(!is_final(u64::MAX, claimed(at_ms, at_ms)), "no overflow");
}

#[test]
fn places_are_counted_up_to_the_quota() {
    let places = AppPlaces::default();
    assert!(places.add_below(2) && places.add_below(2) && !places.add_below(2));
    places.remove();
    assert!(places.add_below(2));
    assert_eq!(places.count(), 2);
}

#[test]
fn a_queue_forgets_clients_that_have_gone() {
    let places = AppPlaces::default();
    let (gone, receiver) = oneshot::channel();
    let (there, _receiver) = oneshot::channel();
    for verdict in [gone, there] {
        let waiting = Waiting {
            transport: Transport::WebSocket,
            since: std::time::Instant::now().into(),
            refused_at_ms: None,
            verdict,
        };
        places.queue().waiting.push_back(waiting);
    }
    drop(receiver);
    assert_eq!(places.wanted(), Some(1));
    places.queue().waiting.clear();
    assert_eq!(places.wanted(), None);
    assert!(!places.queue().is_served);
}
