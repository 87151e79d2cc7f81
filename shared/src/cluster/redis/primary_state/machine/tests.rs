use super::*;

fn run_id(id: &str) -> RunId {
    RunId::from(id)
}

/// The machine of a gateway whose primary is live.
fn live() -> Machine {
    let mut machine = Machine::default();
    machine.will_subscribe();
    machine.adopt(Some(&run_id("a")));
    machine.accepted_a_write(machine.generation());
    machine.subscribed();
    assert_eq!(machine.state(), State::Live);
    machine
}

#[test]
fn a_node_is_ready_once_a_write_was_accepted_and_its_subscriptions_are_in_place() {
    let mut machine = Machine::default();
    machine.will_subscribe();
    assert_eq!((machine.state(), machine.ready()), (State::Connecting, Err(NotReady::NotConnected)));
    machine.subscribed();
    assert_eq!(machine.state(), State::Connecting, "a server that answers may still refuse writes");
    machine.unsubscribed();
    machine.accepted_a_write(machine.generation());
    assert_eq!((machine.state(), machine.ready()), (State::Resynchronizing, Err(NotReady::NotSubscribed)));
    machine.subscribed();
    assert_eq!((machine.state(), machine.ready()), (State::Live, Ok(())));
}

#[test]
fn a_node_that_subscribes_to_nothing_is_live_without_subscriptions() {
    let mut machine = Machine::default();
    assert!(!machine.accepts_events(), "not before the server is known");
    machine.accepted_a_write(machine.generation());
    assert_eq!((machine.state(), machine.ready(), machine.accepts_events()), (State::Live, Ok(()), true));
}

#[test]
fn a_server_that_is_away_leaves_nodes_ready_that_were_live() {
    let mut machine = live();
    assert!(machine.unsubscribed());
    assert!(!machine.unsubscribed(), "once is enough");
    assert_eq!((machine.state(), machine.ready()), (State::Connecting, Ok(())));
    machine.unreachable();
    assert_eq!((machine.state(), machine.ready()), (State::Connecting, Ok(())));
    assert!(machine.accepts_events(), "an attempt finds out");
    machine.accepted_a_write(machine.generation());
    assert_eq!(machine.ready(), Err(NotReady::SubscriptionDown), "now this node alone is without");
    machine.unsubscribed();
    assert_eq!(machine.ready(), Err(NotReady::SubscriptionDown), "it stays so however often it tries");
}

#[test]
fn a_server_that_refuses_takes_the_node_out_until_it_accepts_a_write() {
    for refusal in Refusal::ALL {
        let mut machine = live();
        let before = machine.generation();
        assert!(machine.refused(refusal, before));
        assert!(!machine.refused(refusal, machine.generation()), "{refusal:?} is news once");
        assert_eq!(machine.state(), State::Refusing(refusal));
        assert_eq!((machine.ready(), machine.accepts_events()), (Err(NotReady::Refused(refusal)), false));
        assert_eq!(machine.generation() != before, refusal.ends_connections(), "{refusal:?}");
        machine.unsubscribed();
        assert_eq!(machine.state(), State::Refusing(refusal), "only the probe finds it away");
        machine.subscribed();
        machine.accepted_a_write(machine.generation());
        assert_eq!(machine.state(), State::Live);
    }
}

#[test]
fn what_a_connection_of_an_earlier_generation_was_told_is_ignored() {
    let mut machine = live();
    let before = machine.generation();
    assert!(machine.refused(Refusal::Replica, before));
    machine.accepted_a_write(before);
    assert_eq!(machine.state(), State::Refusing(Refusal::Replica), "the write was accepted before");
    machine.accepted_a_write(machine.generation());
    assert!(!machine.refused(Refusal::Replica, before));
    assert_eq!(machine.state(), State::Live);
}

#[test]
fn another_server_at_the_address_ends_the_connections_to_the_one_before() {
    let mut machine = live();
    let before = machine.generation();
    assert!(!machine.adopt(Some(&run_id("a"))));
    assert!(!machine.adopt(None), "a server that does not say who it is");
    assert_eq!(machine.generation(), before);
    assert!(machine.adopt(Some(&run_id("b"))));
    assert_ne!(machine.generation(), before);
    assert!(machine.is_same_server(Some(&run_id("b")), Instant::now()));
}

#[test]
fn an_address_that_leads_to_two_servers_in_turn_ends_connections_once_a_second() {
    let mut machine = live();
    let (began, mut generations) = (Instant::now(), std::collections::BTreeSet::new());
    for step in 0..30 {
        assert!(!machine.is_same_server(Some(&run_id("b")), began + Duration::from_millis(100 * step)));
        generations.insert(machine.generation());
    }
    assert_eq!(generations.len(), 3);
}

#[test]
fn a_worse_refusal_replaces_a_milder_one() {
    let mut machine = live();
    machine.refused(Refusal::OutOfMemory, machine.generation());
    assert!(machine.refused(Refusal::Replica, machine.generation()));
    assert_eq!(machine.state(), State::Refusing(Refusal::Replica));
}
