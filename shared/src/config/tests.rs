use std::path::PathBuf;

use bytesize::ByteSize;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::app::App;
use crate::secret::Secret;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Root {
    server: Server,
    apps: Vec<App>,
    token: Option<Secret>,
    #[serde(deserialize_with = "text")]
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Server {
    #[serde(deserialize_with = "text")]
    host: String,
    port: u16,
    body: ByteSize,
}

impl Default for Server {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: 8080, body: ByteSize::kib(64) }
    }
}

/// Creates a file with this content, in a folder that is removed when the first value is dropped.
fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("carillon.toml");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Layers {
    /// Returns the layers in their usual order.
    fn over(
        file: Option<&Path>,
        variables: &[Variables<'_>],
        environment: &[(String, String)],
        flags: &serde_json::Value,
    ) -> Self {
        let environment = Variables { name: ENVIRONMENT, pairs: environment };
        let variables = variables.iter().chain([&environment]);
        variables.fold(Self::of_file(file), Self::with_variables).with_flags(flags)
    }
}

fn from_file(content: &str) -> Result<Root, ConfigError> {
    let (_folder, path) = file(content);
    Layers::over(Some(&path), &[], &[], &json!({})).extract()
}

fn from_variables(variables: &[(&str, &str)]) -> Result<Root, ConfigError> {
    Layers::over(None, &[], &pairs(variables), &json!({})).extract()
}

fn from_flags(flags: serde_json::Value) -> Result<Root, ConfigError> {
    Layers::over(None, &[], &[], &flags).extract()
}

/// Checks that the error contains each text of `expected`, and that no form of it contains the secret.
#[track_caller]
fn check_refused(refused: Result<Root, ConfigError>, expected: &[&str]) {
    let error = refused.expect_err("refused");
    for piece in expected {
        assert!(error.to_string().contains(piece), "{piece:?} is not in: {error}");
    }
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("hunter2"), "a secret is in: {text}");
    }
}

#[test]
fn without_any_layer_the_defaults_apply() {
    let root: Root = Layers::of_file(None).extract().unwrap();
    assert_eq!((&*root.server.host, root.server.port, &*root.name), ("127.0.0.1", 8080, ""));
    assert!(root.apps.is_empty() && root.token.is_none());
}

#[test]
fn later_layers_override_single_keys() {
    let (_folder, path) = file("[server]\nhost = \"file\"\nport = 1\n");
    let dotenv = pairs(&[("CARILLON_SERVER__PORT", "2"), ("CARILLON_NAME", "dotenv")]);
    let environment = pairs(&[("CARILLON_SERVER__PORT", "3"), ("CARILLON_SERVER__BODY", "1KiB")]);
    let flags = json!({"server": {"port": 4}});
    let none = json!({});

    let read = |dotenv: &[_], environment: &[_], flags: &serde_json::Value| {
        let dotenv = Variables { name: "a file", pairs: dotenv };
        let root: Root = Layers::over(Some(&path), &[dotenv], environment, flags).extract().unwrap();
        (root.server.host, root.server.port, root.server.body.as_u64(), root.name)
    };
    assert_eq!(read(&[], &[], &none), ("file".into(), 1, 65_536, "".into()));
    assert_eq!(read(&dotenv, &[], &none), ("file".into(), 2, 65_536, "dotenv".into()));
    assert_eq!(read(&dotenv, &environment, &none), ("file".into(), 3, 1024, "dotenv".into()));
    assert_eq!(read(&dotenv, &environment, &flags), ("file".into(), 4, 1024, "dotenv".into()));
}

#[test]
fn the_environment_of_the_process_is_read() {
    assert!(environment().iter().any(|(name, _)| name == "PATH"));
}

#[test]
fn variables_of_other_programs_are_ignored() {
    let root = from_variables(&[("PORT", "x"), ("carillon_name", "x"), ("MY_CARILLON_NAME", "x")]).unwrap();
    assert_eq!(root.name, "");
}

#[test]
fn variables_with_odd_names_cause_no_panic() {
    for name in [
        "CARILLON_",
        "CARILLON___",
        "CARILLON___NAME",
        "CARILLON_____",
        "CARILLON_SERVER__",
        "CARILLON_.",
        "CARILLON_é",
    ] {
        let _ = from_variables(&[(name, "x")]);
        let _ = from_variables(&[(name, "{name=x}")]);
    }
    assert!(from_variables(&[("CARILLON_", "{unknown=1}")]).is_ok());
}

#[test]
fn an_unknown_key_is_named_with_its_source() {
    let (_folder, path) = file("[server]\nprot = 1\n");
    let refused = Layers::over(Some(&path), &[], &[], &json!({})).extract();
    check_refused(refused, &["server.prot: unknown field", "`port`", "(from ", "carillon.toml)"]);
    check_refused(
        from_variables(&[("CARILLON_SERVER__PROT", "1")]),
        &["server.prot: unknown field", "(from the environment)"],
    );
    let dotenv = Variables { name: "a file", pairs: &pairs(&[("CARILLON_SERVER__PROT", "1")]) };
    let dotenv = Layers::over(None, &[dotenv], &[], &json!({})).extract();
    check_refused(dotenv, &["server.prot: unknown field", "(from a file)"]);
    check_refused(from_flags(json!({"prot": 1})), &["prot: unknown field", "(from the command line)"]);
}

#[test]
fn an_unknown_key_of_an_app_is_named() {
    let content = "[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"hunter2\"\n[apps.limits]\nconnection = 1\n";
    check_refused(from_file(content), &["apps.0.limits.connection: unknown field"]);
    check_refused(from_file("[[apps]]\nid = \"a\"\nsecret = \"hunter2\"\n"), &["apps.0: missing field `key`"]);
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_source() {
    let port = &["server.port: invalid type: found a text, expected u16"];
    check_refused(from_file("server.port = \"hunter2\""), port);
    check_refused(from_variables(&[("CARILLON_SERVER__PORT", "hunter2")]), port);
    check_refused(from_flags(json!({"server": {"port": "hunter2"}})), &[port[0], "(from the command line)"]);
    check_refused(
        from_file("server.port = 70000"),
        &["server.port: invalid value: found a whole number, expected u16"],
    );
    check_refused(from_file("server = 1"), &["server: invalid type: found a whole number, expected struct Server"]);
    check_refused(from_file("name = [1]"), &["name: invalid type: found a list, expected a text"]);
    check_refused(from_file("server.body = \"much\""), &["server.body: "]);
}

#[test]
fn ids_and_secrets_can_look_like_numbers() {
    #[track_caller]
    fn check(root: Result<Root, ConfigError>) {
        let root = root.unwrap();
        let app = &root.apps[0];
        assert_eq!((app.id.as_str(), app.key.as_str(), app.secret.reveal()), ("123456", "789", "18446744073709551615"));
    }
    check(from_variables(&[("CARILLON_APPS", "[{id=123456,key=789,secret=18446744073709551615}]")]));
    check(from_variables(&[("CARILLON_APPS", r#"[{id="123456",key="789",secret="18446744073709551615"}]"#)]));
    check(from_file("[[apps]]\nid = 123456\nkey = 789\nsecret = \"18446744073709551615\""));
    check(from_flags(json!({"apps": [{"id": 123_456, "key": "789", "secret": u64::MAX}]})));
}

#[test]
fn leading_zeros_and_signs_of_a_variable_are_kept() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let root = from_variables(&[("CARILLON_TOKEN", value), ("CARILLON_NAME", value)]).unwrap();
        assert_eq!((root.token.unwrap().reveal(), &*root.name), (expected, expected));
    }
    check("007", "007");
    check(" 007 ", "007");
    check("+7", "+7");
    check("0", "0");
    check("-7", "-7");
    check("340282366920938463463374607431768211456", "340282366920938463463374607431768211456");
    check("1e5", "1e5");
    check("\"007\"", "007");
    check("", "");
}

/// figment parses a list as a whole and reads `007` in it as a number. This test records a limitation.
#[test]
fn leading_zeros_inside_a_list_need_quotes() {
    let secret = |value: &str| {
        let apps = format!("[{{id=a,key=b,secret={value}}}]");
        from_variables(&[("CARILLON_APPS", &apps)]).unwrap().apps[0].secret.reveal().to_owned()
    };
    assert_eq!(secret("007"), "7");
    assert_eq!(secret("\"007\""), "007");
}

#[test]
fn errors_never_contain_secrets() {
    check_refused(from_file("token = [\"hunter2\"]"), &["token: a secret must be a text"]);
    check_refused(from_variables(&[("CARILLON_TOKEN", "[hunter2]")]), &["token: a secret must be a text"]);
    check_refused(from_variables(&[("CARILLON_TOKEN", "{a=hunter2}")]), &["token: a secret must be a text"]);
    let unclosed = "[{id=a,key=b,secret=hunter2}";
    check_refused(
        from_variables(&[("CARILLON_APPS", unclosed)]),
        &["apps: invalid type: found a text, expected a sequence"],
    );
    check_refused(from_variables(&[("CARILLON_APPS", "[hunter2]")]), &["apps.0: invalid type: found a text"]);
}

#[test]
fn an_invalid_toml_file_is_refused_without_quoting_it() {
    check_refused(from_file("name = 1\ntoken = hunter2\n"), &["TOML parse error at line 2, column 9: "]);
    check_refused(from_file("token = \"hunter2\n"), &["TOML parse error at line 1"]);
    check_refused(
        from_file("token = \"hunter2\"\ntoken = \"hunter2\"\n"),
        &["TOML parse error at line 2", "duplicate key"],
    );
}

#[test]
fn secrets_are_masked_when_a_configuration_is_printed() {
    let root = from_file("token = \"hunter2\"\n[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"hunter2\"").unwrap();
    let app = serde_json::to_value(&root.apps[0]).unwrap();
    assert_eq!(app["secret"], "***");
    assert!(!format!("{root:?} {root:#?}").contains("hunter2"));
    assert_eq!(root.apps[0].secret.reveal(), "hunter2");
}

#[test]
fn a_missing_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = Layers::over(Some(&folder.path().join("absent.toml")), &[], &[], &json!({})).extract();
    check_refused(refused, &["No such file"]);
}

#[test]
fn every_mistake_is_on_its_own_line() {
    let mistake = |key: &str| Mistake { source: Some("a.toml".into()), ..Mistake::new(key, "wrong") };
    let error = ConfigError::Mistakes(vec![mistake("a.b"), mistake("")]);
    assert_eq!(error.to_string(), "a.b: wrong (from a.toml)\nwrong (from a.toml)");
}

#[test]
fn every_value_has_a_source() {
    let (_folder, path) = file("[server]\nhost = \"a\"\nport = 1\n[[apps]]\nid = 1\nkey = 2\n");
    let environment = pairs(&[("CARILLON_SERVER__PORT", "2"), ("CARILLON_NAME", "a")]);
    let layers = Layers::over(Some(&path), &[], &environment, &json!({"name": "b"}));
    let source = |key: &str| layers.source(key).unwrap_or_default();
    for key in ["server.host", "apps", "apps.0", "apps.0.limits.batch"] {
        assert!(source(key).ends_with("carillon.toml"), "{key}: {}", source(key));
    }
    assert_eq!((source("server.port").as_str(), source("name").as_str()), ("the environment", "the command line"));
    assert_eq!((layers.source("server.body"), layers.source("token")), (None, None));
}

#[test]
fn variables_can_set_entries_of_lists_by_number() {
    let content = "[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"s\"\n[apps.limits]\nbatch = 1\nwatchlist = 2\n";
    let (_folder, path) = file(content);
    let layers = |variables: &[(&str, &str)]| Layers::over(Some(&path), &[], &pairs(variables), &json!({}));
    let root = |variables: &[(&str, &str)]| layers(variables).extract::<Root>().unwrap();

    let variables =
        [("CARILLON_APPS__0__LIMITS__BATCH", "7"), ("CARILLON_APPS__0__ALLOWED_ORIGINS", "[a.example,b.example]")];
    let apps = root(&variables).apps;
    assert_eq!((apps[0].id.as_str(), apps[0].limits.batch, apps[0].limits.watchlist), ("a", 7, 2));
    assert_eq!(apps[0].allowed_origins, ["a.example", "b.example"]);
    let source = |key: &str| layers(&variables).source(key).unwrap_or_default();
    assert_eq!(source("apps.0.limits.batch"), ENVIRONMENT);
    for key in ["apps", "apps.0.id", "apps.0.limits.watchlist", "apps.0.limits.connections"] {
        assert!(source(key).ends_with("carillon.toml"), "{key}: {}", source(key));
    }
    assert!(layers(&variables).is_from_file("apps.0.id") && !layers(&variables).is_from_file("apps.0.limits.batch"));

    let added = [
        ("CARILLON_APPS__1__ID", "007"),
        ("CARILLON_APPS__1__KEY", "1.10"),
        ("CARILLON_APPS__1__SECRET", "'1'"),
        ("CARILLON_APPS__1__WEBHOOKS__0__URL", "https://a.example"),
    ];
    let apps = root(&added).apps;
    assert_eq!((apps.len(), apps[1].id.as_str(), apps[1].key.as_str()), (2, "007", "1.10"));
    assert_eq!((apps[1].secret.reveal(), apps[1].webhooks.len()), ("1", 1));

    let alone = from_variables(&[
        ("CARILLON_APPS__0__ID", "1"),
        ("CARILLON_APPS__0__KEY", "2"),
        ("CARILLON_APPS__0__SECRET", "3"),
        ("CARILLON_APPS__1__ID", "4"),
        ("CARILLON_APPS__1__KEY", "5"),
    ]);
    assert_eq!(alone.unwrap().apps.len(), 2);
    for (secret, read) in
        [("true", "true"), ("[a]", "[a]"), ("{a=1}", "{a=1}"), ("\"a b\"", "a b"), ("'7'", "7"), ("1.0", "1.0")]
    {
        let variables =
            [("CARILLON_APPS__0__ID", "1"), ("CARILLON_APPS__0__KEY", secret), ("CARILLON_APPS__0__SECRET", secret)];
        let apps = from_variables(&variables).unwrap().apps;
        assert_eq!((apps[0].key.as_str(), apps[0].secret.reveal()), (read, read));
    }
    check_refused(
        from_variables(&[("CARILLON_APPS__1__ID", "1")]),
        &["apps.1: expected an entry 0 before this one: entries are counted from 0 (from the environment)"],
    );
    check_refused(from_variables(&[("CARILLON_APPS__X__ID", "1")]), &["apps: invalid type: found a table"]);
}

#[test]
fn a_setting_can_override_all_layers() {
    let layers = Layers::over(None, &[], &pairs(&[("CARILLON_SERVER__PORT", "2")]), &json!({"name": "b"}));
    let layers = layers.with("name", "c", "a test").with("apps.0.id", "i", "a test").with("apps.0.key", "k", "a test");
    let root: Root = layers.extract().unwrap();
    assert_eq!((root.name.as_str(), root.apps[0].id.as_str(), root.server.port), ("c", "i", 2));
    assert_eq!(layers.source("apps.0.key").as_deref(), Some("a test"));
    assert_eq!(layers.source("server.port").as_deref(), Some(ENVIRONMENT));
}

#[test]
fn variables_of_a_kubernetes_service_are_not_configuration() {
    let service = [
        ("CARILLON_PORT", "tcp://10.0.0.1:8080"),
        ("CARILLON_SERVICE_HOST", "10.0.0.1"),
        ("CARILLON_SERVICE_PORT_HTTP", "8080"),
        ("CARILLON_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("CARILLON_GATEWAY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
    ];
    assert!(from_variables(&service).is_ok());
    check_refused(from_variables(&[("CARILLON_PORT", "9000")]), &["port: unknown field"]);
}

#[test]
fn brackets_around_an_ipv6_address_are_removed() {
    #[derive(Deserialize)]
    struct Listener {
        #[serde(deserialize_with = "host")]
        host: String,
    }
    let of_variable = |value: &str| {
        let layers = Layers::over(None, &[], &pairs(&[("CARILLON_HOST", value)]), &json!({}));
        layers.extract::<Listener>().map(|listener| listener.host).map_err(|error| error.to_string())
    };
    let of_flags = |value: &str| {
        let layers = Layers::over(None, &[], &[], &json!({ "host": value }));
        layers.extract::<Listener>().unwrap().host
    };
    for (written, read) in [
        ("[::]", "::"),
        ("[::1]", "::1"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        ("::1", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
    ] {
        assert_eq!((of_variable(written).unwrap().as_str(), of_flags(written).as_str()), (read, read));
    }
    assert_eq!((of_flags("[localhost]"), of_flags("[::1")), ("[localhost]".to_owned(), "[::1".to_owned()));
    for list in ["[a,b]", "[::1,::2]", "[localhost]", "[]"] {
        assert!(of_variable(list).unwrap_err().contains("expected an address"), "{list}");
    }
}
