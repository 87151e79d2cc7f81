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
fn connections_are_counted_up_to_the_quota() {
    let connections = AppConnections::default();
    assert!(connections.add_below(2) && connections.add_below(2) && !connections.add_below(2));
    connections.remove();
    assert!(connections.add_below(2));
    assert_eq!(connections.count(), 2);
}

#[test]
fn the_queue_drops_clients_that_have_disconnected() {
    let connections = AppConnections::default();
    let (disconnected, receiver) = oneshot::channel();
    let (connected, _receiver) = oneshot::channel();
    for decision in [disconnected, connected] {
        let waiting = WaitingHandshake {
            transport: Transport::WebSocket,
            since: std::time::Instant::now().into(),
            refused_at_ms: None,
            decision,
        };
        connections.queue().waiting.push_back(waiting);
    }
    drop(receiver);
    assert_eq!(connections.waiting_count(), Some(1));
    connections.queue().waiting.clear();
    assert_eq!(connections.waiting_count(), None);
    assert!(!connections.queue().is_served);
}
