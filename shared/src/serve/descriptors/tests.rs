use super::*;

#[test]
fn the_limit_is_returned_and_never_lowered() {
    let (before, _) = Resource::NOFILE.get().unwrap();
    let raised = raise_limit().unwrap();
    assert!(raised >= before, "{before} -> {raised}");
    assert_eq!(Resource::NOFILE.get().unwrap().0, raised);
    assert_eq!(raise_limit().unwrap(), raised, "the limit cannot be raised further");
}

#[test]
fn a_limit_without_room_for_connections_is_an_error() {
    for limit in [0, 1, RESERVED] {
        let error = with_room(limit).unwrap_err().to_string();
        let expected = format!("the limit of {limit} open descriptors leaves none for connections, because 256 are");
        assert!(error.starts_with(&expected), "{error}");
    }
    assert_eq!(with_room(RESERVED + 1).unwrap(), RESERVED + 1);
}

#[test]
fn each_shard_reserves_descriptors() {
    let max = |limit, shards| connections_max(limit, shards, false).unwrap();
    assert_eq!((max(RESERVED + 1, 0), max(u64::MAX, 0)), (1, usize::MAX - 256));
    assert_eq!((max(1024, 1), max(1024, 64)), (764, 512));
    assert_eq!((sockets_max(1024, 1, false), sockets_max(1024, 64, false)), (892, 640));
    assert_eq!((connections_max(1024, 64, true).unwrap(), sockets_max(1024, 64, true)), (170, 213));
    let error = connections_max(512, 64, false).unwrap_err().to_string();
    let expected = "the limit of 512 open descriptors leaves none for connections, because 512 are reserved";
    assert!(error.starts_with(expected), "{error}");
    assert!(connections_max(u64::MAX, usize::MAX, false).is_err());
}
