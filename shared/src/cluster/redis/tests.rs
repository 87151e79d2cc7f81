use super::*;

#[test]
fn a_url_is_printed_without_its_credentials() {
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
fn every_form_of_url_is_valid() {
    for url in ["redis://h", "redis://u:p@h:1/2", "rediss://:p@h", "redis+unix:///s?db=1", "unix:///s"] {
        let config = Config { url: Secret::new(url), ..Config::default() };
        assert!(config.check().is_ok(), "{url}");
    }
}

#[test]
fn an_error_explains_a_mistake_in_the_url_without_repeating_it() {
    let encoded = "must be percent-encoded";
    for (url, expected) in [
        ("redis://:p@hush/w#rd@host", encoded),
        ("redis://:hush/x@host:6379/0", encoded),
        ("redis://:hush#x@host", encoded),
        ("redis://:hush?x@host", encoded),
        ("redis://:p@hush/0#rd@host", encoded),
        ("redis://host/0#hush", encoded),
        ("redis://u:hush%x@host", encoded),
        ("redis://u:hush%@host", encoded),
        ("redis://u:hush%ff@host", encoded),
        ("rediss://u:hush@host#insecure", "redis.ca_file"),
        ("redis://u:hush@host:70000", "expected a port"),
        ("redis://u:hush@host:port", "expected a port"),
        ("redis://u:hush@[::1]:x", "expected a port"),
        ("redis://u:hush@host/zero", "number of a database"),
        ("redis://u:hush@host/-1", "number of a database"),
        ("redis-sentinel://u:hush@host", "Redis Sentinel is not supported"),
        ("redis+unix://hush", "begins with /"),
        ("redis://:hush@", "expected redis://, rediss://"),
        ("redis://", "expected redis://, rediss://"),
        ("http://u:hush@host", "expected redis://, rediss://"),
        ("host:6379", "expected redis://, rediss://"),
    ] {
        let config = Config { url: Secret::new(url), ..Config::default() };
        let error = config.check().expect_err(url);
        assert_eq!(error.key(), "redis.url", "{url}");
        assert!(error.to_string().contains(expected), "{url}: {error}");
        assert!(!error.to_string().contains("hush"), "{url}: {error}");
    }
    for (url, password) in [
        ("redis://:p%40ss%2Fw%23rd@host", "p@ss/w#rd"),
        ("redis://u:p@ss@host:1/2", "p@ss"),
        ("redis://u:p:ss@[::1]:1", "p:ss"),
        ("rediss://u:%25%3F@host:6380/0?protocol=3", "%?"),
    ] {
        let config = Config { url: Secret::new(url), ..Config::default() };
        config.check().unwrap_or_else(|error| panic!("{url}: {error}"));
        let info = config.parse_url().unwrap();
        assert_eq!(info.redis_settings().password(), Some(password), "{url}");
    }
}
