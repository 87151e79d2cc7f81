use super::*;

#[test]
fn a_url_is_printed_without_what_one_logs_in_with() {
    for (url, expected) in [
        ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
        ("redis://:hush@host", "redis://***@host"),
        ("rediss://user:hu@sh@host:6380/0", "rediss://***@host:6380/0"),
        ("redis+unix:///run/redis.sock?db=1&pass=hush", "redis+unix:///run/redis.sock"),
        ("hush", "***"),
    ] {
        assert_eq!(mask(url), expected);
    }
}

#[test]
fn every_form_of_url_makes_a_client() {
    for url in ["redis://h", "redis://u:p@h:1/2", "rediss://:p@h", "redis+unix:///s?db=1", "unix:///s"] {
        let config = Config { url: Secret::new(url), ..Config::default() };
        assert!(config.validate().is_ok(), "{url}");
    }
}
