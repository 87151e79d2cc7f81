use super::*;

/// `expected`: the close code of the refusal; `None` if the version is accepted.
#[track_caller]
fn check_query(query: &str, expected: Option<CloseCode>) {
    assert_eq!(check_version(query).map_err(|farewell| farewell.code).err(), expected, "{query:?}");
}

#[test]
fn versions_4_to_7_and_a_missing_version_are_accepted() {
    for query in [
        "protocol=7&client=js&version=8.6.0&flash=false",
        "client=java-client&protocol=5&version=2.4.4",
        "protocol=6",
        "protocol=4",
        "protocol=07",
        "%70rotocol=7",
        "",
        "client=js",
        "Protocol=9",
        "=9",
    ] {
        check_query(query, None);
    }
}

#[test]
fn other_versions_are_unsupported() {
    for query in ["protocol=3", "protocol=8", "protocol=0", "protocol=4294967295", "client=js&protocol=1"] {
        check_query(query, Some(CloseCode::UnsupportedVersion));
    }
}

#[test]
fn a_version_that_is_not_a_number_is_invalid() {
    for query in ["protocol=", "protocol", "protocol=x", "protocol=7.0", "protocol=-7", "protocol=+7", "protocol=7%00"]
    {
        check_query(query, Some(CloseCode::InvalidVersion));
    }
    check_query("protocol=99999999999999999999", Some(CloseCode::InvalidVersion));
}

#[test]
fn the_first_of_several_versions_counts() {
    check_query("protocol=7&protocol=9", None);
    check_query("protocol=9&protocol=7", Some(CloseCode::UnsupportedVersion));
}

#[test]
fn the_refusal_of_a_version_names_the_supported_one() {
    assert_eq!(
        check_version("protocol=9"),
        Err(Farewell::new(CloseCode::UnsupportedVersion, "Unsupported protocol version 9; this server supports 7"))
    );
}
