use super::*;

#[test]
fn the_limit_in_force_is_told_and_never_lower_than_before() {
    let (before, _) = Resource::NOFILE.get().unwrap();
    let raised = raise_limit().unwrap();
    assert!(raised >= before, "{before} -> {raised}");
    assert_eq!(Resource::NOFILE.get().unwrap().0, raised);
    assert_eq!(raise_limit().unwrap(), raised, "there is nothing left to raise");
}

#[test]
fn a_limit_without_room_for_connections_is_an_error() {
    for limit in [0, 1, RESERVED] {
        let error = with_room(limit).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{limit} open descriptors are allowed and 256 are needed")), "{error}");
    }
    assert_eq!(with_room(RESERVED + 1).unwrap(), RESERVED + 1);
    assert_eq!((connections_max(RESERVED + 1, false), connections_max(u64::MAX, false)), (1, usize::MAX - 256));
}
