use super::*;

#[track_caller]
fn check_key(path: &str, prefix: &str, expected: Option<&str>) {
    assert_eq!(key_in(path, prefix), expected, "{path:?} under {prefix:?}");
}

/// Whether the app with this key is found for `path`.
#[track_caller]
fn names(path: &str, key: &str) -> bool {
    let app = serde_json::from_value(serde_json::json!({ "id": "1", "key": key, "secret": "s" })).unwrap();
    let apps = Apps::new([app]).unwrap();
    key_in(path, "").is_some_and(|key| find_app(&apps, key).is_some())
}

#[test]
fn the_key_is_the_rest_of_the_path() {
    check_key("/app/key", "", Some("key"));
    check_key("/app/278d425bdf160c739803", "", Some("278d425bdf160c739803"));
    check_key("/app/a%2Fb", "", Some("a%2Fb"));
    check_key("/app/app", "", Some("app"));
    check_key("/app/key/more", "", Some("key/more"));
    check_key("/app/key/", "", Some("key/"));
    check_key("//app/key", "", Some("key"));
}

#[test]
fn other_paths_have_no_key() {
    for path in ["", "/", "/app", "/app/", "/app//", "/apps/key", "/App/key", "app/key"] {
        check_key(path, "", None);
    }
    check_key("/ws/app/key", "", None);
}

#[test]
fn a_configured_prefix_is_required() {
    check_key("/ws/app/key", "/ws", Some("key"));
    check_key("/ws//app/key", "/ws", Some("key"));
    check_key("//ws/app/key", "/ws", Some("key"));
    check_key("/a/b/app/key", "/a/b", Some("key"));
    check_key("/app/key", "/ws", None);
    check_key("/wsapp/key", "/ws", None);
    check_key("/ws2/app/key", "/ws", None);
    check_key("/ws/ws/app/key", "/ws", None);
}

#[test]
fn slashes_around_the_key_are_ignored() {
    for path in ["/app/key", "/app/key/", "/app/key//", "/app//key", "/app/k%65y", "/app/k%65y/"] {
        assert!(names(path, "key"), "{path}");
    }
    for path in ["/app/key/more", "/app/ke", "/app/KEY", "/app/key%2F", "/app/key%00"] {
        assert!(!names(path, "key"), "{path}");
    }
}

#[test]
fn a_key_may_contain_any_character() {
    let base64 = "zJ0+/yR1/B8c=";
    assert!(names("/app/zJ0+/yR1/B8c=", base64));
    assert!(names("/app/zJ0+/yR1/B8c=/", base64));
    assert!(names("/app/zJ0%2B%2FyR1%2FB8c%3D", base64));
    assert!(names("/app/zJ0%2b/yR1%2fB8c=", base64));
    assert!(!names("/app/zJ0 /yR1/B8c=", base64), "a plus in a path is not a space");
    assert!(names("/app/a/", "a/") && names("/app//a", "/a") && names("/app/a%2F", "a/"));
    assert!(names("/app/a%41b", "a%41b"), "a key that looks encoded");
    assert!(names("/app/%E2%82%AC", "€") && names("/app/a b", "a b") && names("/app/a%20b", "a b"));
    assert!(!names("/app/%ff", "\u{fffd}x"));
}
