use super::*;

fn run_id(id: &str) -> RunId {
    RunId::from(id)
}

/// Returns the machine of a gateway with a live primary.
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
fn a_node_is_ready_after_an_accepted_write_and_confirmed_subscriptions() {
    let mut machine = Machine::default();
    machine.will_subscribe();
    assert_eq!((machine.state(), machine.ready()), (State::Connecting, Err(NotReady::NotConnected)));
    machine.subscribed();
    assert_eq!(machine.state(), State::Connecting, "a reachable server may still reject writes");
    machine.unsubscribed();
    machine.accepted_a_write(machine.generation());
    assert_eq!((machine.state(), machine.ready()), (State::Resynchronizing, Err(NotReady::NotSubscribed)));
    machine.subscribed();
    assert_eq!((machine.state(), machine.ready()), (State::Live, Ok(())));
}

#[test]
fn a_node_without_a_subscriber_is_live_without_subscriptions() {
    let mut machine = Machine::default();
    assert!(!machine.accepts_events(), "the server has not replied yet");
    machine.accepted_a_write(machine.generation());
    assert_eq!((machine.state(), machine.ready(), machine.accepts_events()), (State::Live, Ok(()), true));
}

#[test]
fn nodes_that_were_live_stay_ready_while_the_server_is_unreachable() {
    let mut machine = live();
    assert!(machine.unsubscribed());
    assert!(!machine.unsubscribed(), "one request is enough");
    assert_eq!((machine.state(), machine.ready()), (State::Connecting, Ok(())));
    machine.unreachable();
    assert_eq!((machine.state(), machine.ready()), (State::Connecting, Ok(())));
    assert!(machine.accepts_events(), "a publish shows whether the server is back");
    machine.accepted_a_write(machine.generation());
    assert_eq!(machine.ready(), Err(NotReady::SubscriptionDown), "only this node lacks its subscriptions");
    machine.unsubscribed();
    assert_eq!(machine.ready(), Err(NotReady::SubscriptionDown), "further attempts do not change it");
}

#[test]
fn a_refusal_makes_the_node_not_ready_until_a_write_is_accepted() {
    for refusal in Refusal::ALL {
        let mut machine = live();
        let before = machine.generation();
        assert!(machine.refused(refusal, before));
        assert!(!machine.refused(refusal, machine.generation()), "{refusal:?} changes the state once");
        assert_eq!(machine.state(), State::Refusing(refusal));
        assert_eq!((machine.ready(), machine.accepts_events()), (Err(NotReady::Refused(refusal)), false));
        assert_eq!(machine.generation() != before, refusal.ends_connections(), "{refusal:?}");
        machine.unsubscribed();
        assert_eq!(machine.state(), State::Refusing(refusal), "only the probe reports it as unreachable");
        machine.subscribed();
        machine.accepted_a_write(machine.generation());
        assert_eq!(machine.state(), State::Live);
    }
}

#[test]
fn reports_of_connections_of_an_earlier_generation_are_ignored() {
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
fn a_different_server_at_the_address_ends_the_connections_to_the_previous_one() {
    let mut machine = live();
    let before = machine.generation();
    assert!(!machine.adopt(Some(&run_id("a"))));
    assert!(!machine.adopt(None), "the run id is unknown");
    assert_eq!(machine.generation(), before);
    assert!(machine.adopt(Some(&run_id("b"))));
    assert_ne!(machine.generation(), before);
    assert!(machine.is_same_server(Some(&run_id("b")), Instant::now()));
}

#[test]
fn an_address_of_two_servers_ends_connections_at_most_once_per_second() {
    let mut machine = live();
    let (began, mut generations) = (Instant::now(), std::collections::BTreeSet::new());
    for step in 0..30 {
        assert!(!machine.is_same_server(Some(&run_id("b")), began + Duration::from_millis(100 * step)));
        generations.insert(machine.generation());
    }
    assert_eq!(generations.len(), 3);
}

#[test]
fn a_new_refusal_replaces_the_previous_one() {
    let mut machine = live();
    machine.refused(Refusal::OutOfMemory, machine.generation());
    assert!(machine.refused(Refusal::Replica, machine.generation()));
    assert_eq!(machine.state(), State::Refusing(Refusal::Replica));
}
