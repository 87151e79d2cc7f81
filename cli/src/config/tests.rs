use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::args::Files;

mod laravel;

/// The sources of the configuration in a test.
#[derive(Default)]
struct Given<'a> {
    file: Option<&'a str>,
    env_file: Option<&'a str>,
    environment: &'a [(&'a str, &'a str)],
    settings: Settings,
}

impl Given<'_> {
    fn load(self) -> Result<Config, String> {
        self.load_for(Role::Up)
    }

    fn load_for(self, role: Role) -> Result<Config, String> {
        let dir = TempDir::new().unwrap();
        let write = |name: &str, text: Option<&str>| -> Option<PathBuf> {
            let path = dir.path().join(name);
            std::fs::write(&path, text?).unwrap();
            Some(path)
        };
        let files = Files { config: write("carillon.toml", self.file), env_file: write(".env", self.env_file) };
        let environment: Pairs =
            self.environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Config::load_with(&Settings { files, ..self.settings }, role, &environment).map_err(|error| error.to_string())
    }
}

fn file(text: &str) -> Given<'_> {
    Given { file: Some(text), ..Given::default() }
}

fn env_file(text: &str) -> Given<'_> {
    Given { env_file: Some(text), ..Given::default() }
}

const SHOP: &str = "[[apps]]\nid = \"shop\"\nkey = \"k\"\nsecret = \"s\"\n";

/// Checks that `expected` is one of the mistakes, without its source.
#[track_caller]
fn refused(given: Given<'_>, expected: &str) {
    refusal(given, expected);
}

/// Returns the source of the expected mistake, or an empty text.
#[track_caller]
fn refusal(given: Given<'_>, expected: &str) -> String {
    let error = given.load().expect_err("the configuration should be refused");
    let source = error.lines().find_map(|line| line.strip_prefix(expected));
    let source = source.unwrap_or_else(|| panic!("expected the line\n  {expected}\nin\n{error}"));
    if source.is_empty() {
        return String::new();
    }
    let source = source.strip_prefix(" (from ").and_then(|source| source.strip_suffix(')'));
    source.unwrap_or_else(|| panic!("expected only\n  {expected}\nin\n{error}")).to_owned()
}

#[track_caller]
fn app_of(given: Given<'_>, expected: (&str, &str, &str)) {
    let config = given.load().unwrap();
    let [app] = config.apps.as_slice() else { panic!("{} apps", config.apps.len()) };
    assert_eq!((app.id.as_str(), app.key.as_str(), app.secret.reveal()), expected);
}

#[test]
fn without_any_source_the_demo_app_is_served_on_loopback() {
    let config = Given::default().load().unwrap();
    assert!(config.demo);
    assert_eq!((config.server.host.as_str(), config.server.port), ("127.0.0.1", 8080));
    app_of(Given::default(), (DEMO_ID, DEMO_KEY, DEMO_SECRET));
}

#[test]
fn a_configured_app_is_served_on_all_addresses() {
    let config = file(SHOP).load().unwrap();
    assert!(!config.demo);
    assert_eq!(config.server.host, "0.0.0.0");
}

#[test]
fn a_configured_host_is_used_with_a_configured_app() {
    let config = file(&format!("{SHOP}[server]\nhost = \"10.0.0.1\"\n")).load().unwrap();
    assert_eq!(config.server.host, "10.0.0.1");
}

#[test]
fn the_demo_app_may_be_served_on_any_loopback_address() {
    for host in ["localhost", "127.0.0.2", "::1"] {
        let settings = Settings { host: Some(host.into()), ..Settings::default() };
        let config = Given { settings, ..Given::default() }.load().unwrap();
        assert_eq!(config.server.host, host);
    }
}

#[test]
fn the_demo_app_is_refused_on_other_addresses_from_every_source() {
    let expected = "server.host: expected 127.0.0.1 or another loopback address, not \"0.0.0.0\", while no app is \
                    configured: the demo app's secret is public. `carillon app new` creates an app";
    let settings = Settings { host: Some("0.0.0.0".into()), ..Settings::default() };
    refused(Given { settings, ..Given::default() }, expected);
    refused(file("[server]\nhost = \"0.0.0.0\""), expected);
    refused(env_file("CARILLON_SERVER__HOST=0.0.0.0"), expected);
    refused(env_file("REVERB_SERVER_HOST=0.0.0.0"), expected);
}

#[test]
fn each_layer_overrides_the_ones_before_it() {
    let port = |given: Given<'_>| given.load().unwrap().server.port;
    let file = Some("[server]\nport = 1\n");
    let laravel = Some("REVERB_SERVER_PORT=2\n");
    let both = Some("REVERB_SERVER_PORT=2\nCARILLON_SERVER__PORT=3\n");
    let settings = Settings { port: Some(4), ..Settings::default() };
    assert_eq!(port(Given { file, ..Given::default() }), 1);
    assert_eq!(port(Given { file, env_file: laravel, ..Given::default() }), 2);
    assert_eq!(port(Given { file, env_file: both, ..Given::default() }), 3);
    assert_eq!(port(Given { file, env_file: both, settings, ..Given::default() }), 4);
}

#[test]
fn a_violated_rule_names_the_source_of_the_value() {
    let expected = "server.activity_timeout: expected at least 1s, not 0s";
    let source = refusal(file("[server]\nactivity_timeout = \"0s\"\n"), expected);
    assert!(source.ends_with("carillon.toml"), "{source}");
    let of_env_file = env_file("CARILLON_SERVER__ACTIVITY_TIMEOUT=0s");
    assert_eq!(refusal(of_env_file, expected), "the file of --env-file");

    let listed =
        refusal(file("[[apps]]\nid = \"a\"\nkey = \"k\"\n"), "apps.0.secret: expected a secret, or secret_file");
    assert!(listed.ends_with("carillon.toml"), "{listed}");
    let secret = env_file("CARILLON_APPS=[{id=a,key=k}]");
    assert_eq!(refusal(secret, "apps.0.secret: expected a secret, or secret_file"), "the file of --env-file");

    let empty = "server.host: expected an address to listen on, like \"127.0.0.1\"";
    let settings = Settings { host: Some(String::new()), ..Settings::default() };
    assert_eq!(refusal(Given { settings, file: Some(SHOP), ..Given::default() }, empty), "the command line");

    let demo = "server.host: expected 127.0.0.1 or another loopback address, not \"0.0.0.0\", while no app is configured: \
                the demo app's secret is public. `carillon app new` creates an app";
    let source = refusal(env_file("REVERB_SERVER_HOST=0.0.0.0"), demo);
    assert_eq!(source, "REVERB_SERVER_HOST in the file of --env-file");

    // Two settings contradict each other, and the first is a default.
    let text = format!("{SHOP}[server]\noutbox_bytes = \"16KiB\"\n");
    let expected =
        "apps.0.limits.event_bytes: expected at most half of server.outbox_bytes, which is 16.0 KiB, not 10.0 KiB";
    assert!(refusal(file(&text), expected).ends_with("carillon.toml"));
}

#[test]
fn missing_files_are_named() {
    let path = Some(PathBuf::from("/nowhere/at/all"));
    let of = |files| {
        let settings = Settings { files, ..Settings::default() };
        Config::load_with(&settings, Role::Up, &[]).unwrap_err().to_string()
    };
    assert_eq!(of(Files { config: path.clone(), env_file: None }), "cannot read /nowhere/at/all (--config)");
    assert_eq!(of(Files { config: None, env_file: path }), "cannot read /nowhere/at/all (--env-file)");
}

#[test]
fn unknown_keys_are_refused_at_every_level() {
    for (text, key) in [
        ("[servers]\n", "servers"),
        ("[server]\nhots = 1\n", "hots"),
        ("[[apps]]\nid = 1\nkey = 2\nsecret = 3\nwebsocket = 4\n", "websocket"),
        ("[[apps]]\nid = 1\nkey = 2\nsecret = 3\n[apps.limits]\nbatches = 4\n", "batches"),
    ] {
        let error = file(text).load().unwrap_err();
        assert!(error.contains(key) && error.contains("carillon.toml"), "{error}");
    }
    let error = env_file("CARILLON_SERVER__HOTS=1").load().unwrap_err();
    assert!(error.contains("hots") && error.contains("--env-file"), "{error}");
}

#[test]
fn ids_keys_and_secrets_may_be_numbers() {
    app_of(file("[[apps]]\nid = 1\nkey = 2\nsecret = 3\n"), ("1", "2", "3"));
}

#[test]
fn names_that_a_url_cannot_contain_are_refused() {
    let app = |id: &str, key: &str| format!("[[apps]]\nid = {id:?}\nkey = {key:?}\nsecret = \"s\"\n");
    let expected = "expected one or more letters, digits, hyphens, dots, underscores or tildes";
    for id in ["", "a/b", "a+b", "a="] {
        refused(file(&app(id, "k")), &format!("apps.0.id: {expected}, not {id:?}"));
    }
    for key in ["", "a?b", "a#b", "a\nb", " a", "a/../b", "..", "./a", &"k".repeat(201)] {
        let error = file(&app("a", key)).load().unwrap_err();
        assert!(error.contains("apps.0.key: expected a key that a URL path can contain"), "{error}");
    }
}

#[test]
fn keys_may_have_all_characters_that_a_path_can_hold() {
    for key in
        ["MWfOjqT8cbGdjnb+QjvKoK1N/0qkOrPqKJ2rW7Z2aLo=", "k:k", "a/b/c", "ключ", "a b", "100%", "..a", &"k".repeat(200)]
    {
        app_of(file(&format!("[[apps]]\nid = \"a\"\nkey = {key:?}\nsecret = \"+/=: #\"\n")), ("a", key, "+/=: #"));
    }
}

#[test]
fn an_app_needs_a_secret() {
    let expected = "apps.0.secret: expected a secret, or secret_file";
    refused(file("[[apps]]\nid = \"a\"\nkey = \"k\"\n"), expected);
    refused(file("[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"\"\n"), expected);
}

#[test]
fn two_apps_cannot_share_an_id_or_a_key() {
    refused(
        file(&format!("{SHOP}[[apps]]\nid = \"shop\"\nkey = \"other\"\nsecret = \"s\"\n")),
        "apps: expected ids and keys to be unique, but app id \"shop\" is configured twice",
    );
    refused(
        file(&format!("{SHOP}[[apps]]\nid = \"other\"\nkey = \"k\"\nsecret = \"s\"\n")),
        "apps: expected ids and keys to be unique, but app key \"k\" is configured twice",
    );
}

fn with_secret_file(path: &Path, more: &str) -> String {
    format!("[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret_file = {path:?}\n{more}")
}

#[test]
fn a_secret_file_loses_one_line_break() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    for (content, secret) in [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), ("s\n\n", "s\n"), (" s ", " s ")] {
        std::fs::write(&path, content).unwrap();
        app_of(file(&with_secret_file(&path, "")), ("a", "k", secret));
    }
}

#[test]
fn a_secret_file_without_a_secret_is_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    let shown = path.display();
    let missing = format!("apps.0.secret_file: cannot read {shown}: No such file or directory (os error 2)");
    refused(file(&with_secret_file(&path, "")), &missing);
    std::fs::write(&path, "\n").unwrap();
    refused(
        file(&with_secret_file(&path, "")),
        &format!("apps.0.secret_file: expected a secret, but {shown} is empty"),
    );
    refused(
        file(&with_secret_file(&path, "secret = \"s\"\n")),
        "apps.0.secret_file: expected either secret or secret_file, not both",
    );
}

#[test]
fn limits_that_would_refuse_everything_are_refused() {
    for name in [
        "channels_per_connection",
        "event_bytes",
        "channel_name_length",
        "event_name_length",
        "channels_per_event",
        "batch",
        "presence_members",
        "user_id_length",
    ] {
        refused(
            file(&format!("{SHOP}[apps.limits]\n{name} = 0\n")),
            &format!("apps.0.limits.{name}: expected at least 1, since 0 would refuse everything"),
        );
    }
}

#[test]
fn an_outbox_must_hold_two_events_but_may_be_smaller_than_a_list_of_members() {
    assert!(
        file(&format!("{SHOP}[apps.limits]\npresence_members = 100000\nmessage_bytes = \"1KiB\"\n")).load().is_ok()
    );
    refused(
        file(&format!("{SHOP}[apps.limits]\nmessage_bytes = \"1MiB\"\nevent_bytes = \"1MiB\"\n")),
        "apps.0.limits.event_bytes: expected at most half of server.outbox_bytes, which is 1.0 MiB, not 1.0 MiB",
    );
}

#[test]
fn the_rules_of_all_sections_are_checked_and_all_mistakes_are_reported() {
    let text = "[server]\nhost = \"\"\npath_prefix = \"ws\"\nshards = 1025\nfallback_reconnect = \"999ms\"\n";
    let text = format!("{SHOP}{text}[admin]\nhost = \"\"\n[peers]\nhost = \"\"\n[log]\nlevel = \"a=b=c\"\n");
    refused(file(&text), "server.path_prefix: expected a path like \"/ws\", without a slash at the end, not \"ws\"");
    refused(file(&text), "server.host: expected an address to listen on, like \"127.0.0.1\"");
    refused(file(&text), "admin.host: expected an address to listen on, like \"127.0.0.1\"");
    refused(file(&text), "peers.host: expected an address to listen on, like \"127.0.0.1\"");
    refused(file(&text), "server.shards: expected at most 1024, or 0 for one per core, not 1025");
    refused(file(&text), "server.fallback_reconnect: expected at least 1s, or 0s for never, not 999ms");
    let bounds = |reconnect: &str| format!("[server]\nshards = 1024\nfallback_reconnect = \"{reconnect}\"\n");
    assert!(file(&bounds("0s")).load().is_ok() && file(&bounds("1s")).load().is_ok());
    refused(
        file(&text),
        "log.level: expected a level or a filter, like \"info\" or \"info,gateway=debug\", not \"a=b=c\"",
    );
}

#[test]
fn activity_is_logged_only_with_debug_unless_the_filter_names_it() {
    let level = |level: &str, debug| {
        let settings = Settings { debug, ..Settings::default() };
        let text = format!("[log]\nlevel = \"{level}\"\n");
        Given { file: Some(&text), settings, ..Given::default() }.load().unwrap().log.level
    };
    assert_eq!(level("info", false), "info,activity=off");
    assert_eq!(level("info", true), "info,activity=debug");
    assert_eq!(level("warn,activity=debug", false), "warn,activity=debug");
    assert_eq!(level("info,activity=off", true), "info,activity=off,activity=debug");
}

#[test]
fn the_printed_configuration_can_be_read_again() {
    let printed = toml::to_string(&Given::default().load().unwrap()).unwrap();
    assert!(printed.contains("secret = \"***\"") && !printed.contains(DEMO_SECRET), "{printed}");
    let read = file(&printed).load().unwrap();
    assert_eq!(toml::to_string(&read).unwrap(), printed);
}

#[test]
fn a_role_of_a_cluster_needs_redis_and_an_app() {
    for role in [Role::Gateway, Role::Publisher] {
        let error = Given::default().load_for(role).unwrap_err();
        assert!(error.contains("apps: expected at least one app"), "{error}");
        assert!(error.contains("redis.url: expected the URL of the Redis"), "{error}");
        let settings = Settings { redis: Some(Secret::new("redis://127.0.0.1")), ..Settings::default() };
        let config = Given { settings, ..file(SHOP) }.load_for(role).unwrap();
        assert!(config.redis.is_set() && !config.demo, "{config:?}");
    }
}

#[test]
fn a_publisher_has_its_own_default_port() {
    let redis = "[redis]\nurl = \"redis://127.0.0.1\"\n";
    let port = |text: &str| file(text).load_for(Role::Publisher).unwrap().server.port;
    assert_eq!(port(&format!("{redis}{SHOP}")), 8081);
    assert_eq!(port(&format!("{redis}[server]\nport = 8080\n{SHOP}")), 8080);
}

#[test]
fn an_invalid_redis_section_is_refused_without_printing_the_password() {
    for (lines, expected) in [
        ("url = \"http://u:hush@h\"", "redis.url: expected redis://, rediss:// or redis+unix://"),
        ("prefix = \"a:b\"", "redis.prefix: expected one or more letters"),
        ("prefix = \"\"", "redis.prefix: expected one or more letters"),
        ("partitions = 0", "redis.partitions: expected between 1 and 4096"),
        ("command_timeout = \"0s\"", "redis.command_timeout: expected between 10ms and 10s"),
        ("url = \"rediss://:hush@h\"\nca_file = \"/nowhere\"", "redis.ca_file: cannot use /nowhere: "),
    ] {
        let error = file(&format!("[redis]\n{lines}\n{SHOP}")).load().unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }
}

#[test]
fn the_url_of_redis_can_be_read_from_a_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("url");
    let text = format!("{SHOP}[redis]\nurl_file = {path:?}\n");
    refused(
        file(&text),
        &format!("redis.url_file: cannot read {}: No such file or directory (os error 2)", path.display()),
    );
    std::fs::write(&path, "\n").unwrap();
    refused(file(&text), &format!("redis.url_file: expected a secret, but {} is empty", path.display()));
    std::fs::write(&path, "redis://user:hush@host:1/0\n").unwrap();
    for role in [Role::Up, Role::Gateway, Role::Publisher] {
        let config = file(&text).load_for(role).unwrap();
        assert_eq!((config.redis.url.reveal(), config.redis.is_set()), ("redis://user:hush@host:1/0", true));
        assert!(!toml::to_string(&config).unwrap().contains("hush"));
    }
    let both = format!("{text}url = \"redis://other\"\n");
    refused(file(&both), "redis.url_file: expected either url or url_file, not both");
    let settings = || Settings { redis: Some(Secret::new("redis://flag")), ..Settings::default() };
    let config = Given { settings: settings(), file: Some(&text), ..Given::default() }.load().unwrap();
    assert_eq!(config.redis.url.reveal(), "redis://flag");
    std::fs::write(&path, "nonsense").unwrap();
    refused(file(&text), "redis.url: expected redis://, rediss:// or redis+unix://, with a host or a path");
}

#[test]
fn headers_of_webhooks_can_be_read_from_files() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("token");
    let with = |headers: &str| {
        let files = format!("header_files = {{ Authorization = {path:?} }}");
        format!("{SHOP}[[apps.webhooks]]\nurl = \"https://a.example\"\n{files}\n{headers}\n")
    };
    let missing = "apps.0.webhooks.0.header_files.Authorization: cannot read ";
    refused(file(&with("")), &format!("{missing}{}: No such file or directory (os error 2)", path.display()));
    std::fs::write(&path, "Bearer hush\n").unwrap();
    let config = file(&with("headers = { X-Kind = \"a\" }")).load().unwrap();
    let headers: Vec<(&str, &str)> =
        config.apps[0].webhooks[0].headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
    assert_eq!(headers, [("Authorization", "Bearer hush"), ("X-Kind", "a")]);
    refused(
        file(&with("headers = { authorization = \"b\" }")),
        "apps.0.webhooks.0.header_files.Authorization: expected either headers.Authorization or \
         header_files.Authorization, not both",
    );
    std::fs::write(&path, "two\nlines").unwrap();
    let unreadable = "apps.0.webhooks.0.headers: expected visible ASCII characters as the value of \"Authorization\"";
    refused(file(&with("")), unreadable);
}
