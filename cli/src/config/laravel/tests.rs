use super::*;

/// Laravel's variables with what they borrow from.
pub(super) struct Owner {
    environment: Vec<(String, String)>,
    env_file: EnvFile,
}

impl Owner {
    pub(super) fn borrow(&self) -> Laravel<'_> {
        Laravel::new(&self.env_file, &self.environment)
    }
}

pub(super) fn laravel_of(file: &str) -> Owner {
    with_environment(file, &[])
}

fn with_environment(file: &str, environment: &[(&str, &str)]) -> Owner {
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let env_file = EnvFile::of_text(file, &environment);
    Owner { environment, env_file }
}

#[test]
fn the_environment_overrides_the_file_even_with_an_empty_value() {
    let owner = with_environment("A=file\nB=file\nC=file", &[("A", "process"), ("B", "")]);
    let value = |name| owner.borrow().set(name).unwrap().map(|found| (found.text().to_owned(), found.layer));
    assert_eq!(value("A"), Some(("process".into(), ENVIRONMENT)));
    assert_eq!(value("B"), None);
    assert_eq!(value("C"), Some(("file".into(), ENV_FILE)));
    assert_eq!(value("D"), None);
}

#[test]
fn quotes_that_docker_leaves_in_the_environment_are_removed() {
    let owner = with_environment("", &[("A", "\"s 1\""), ("B", "'s 1'"), ("C", "null"), ("D", "\"")]);
    let value = |name| owner.borrow().set(name).unwrap().map(|found| found.text().to_owned());
    assert_eq!([value("A"), value("B")], [Some("s 1".into()), Some("s 1".into())]);
    assert_eq!([value("C"), value("D")], [None, Some("\"".into())]);
}

#[test]
fn variables_of_the_server_become_settings() {
    let owner = laravel_of(
        "REVERB_SERVER_HOST=[::]\nREVERB_SERVER_PORT=\"6001\"\nREVERB_SERVER_PATH=ws/\nREVERB_APP_ACTIVITY_TIMEOUT=45",
    );
    let settings = owner.borrow().settings().unwrap();
    let texts: Vec<(&str, String)> =
        settings.iter().map(|setting| (setting.key, format!("{:?}", setting.value))).collect();
    let keys = ["server.host", "server.port", "server.path_prefix", "server.activity_timeout"];
    assert_eq!(texts.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
    assert!(texts[1].1.contains("6001") && texts[2].1.contains("\"/ws\"") && texts[3].1.contains("45s"), "{texts:?}");
    assert_eq!(settings[0].source, "REVERB_SERVER_HOST in the file of --env-file");
}

#[test]
fn paths_of_reverb_get_one_leading_slash_and_no_trailing_slash() {
    for (value, path) in [("ws", "/ws"), ("/ws", "/ws"), ("/ws/", "/ws"), ("//a/b//", "/a/b"), ("/", "")] {
        let owner = laravel_of(&format!("REVERB_SERVER_PATH={value}"));
        let settings = owner.borrow().settings().unwrap();
        assert_eq!(settings[0].value.as_str(), Some(path), "{value}");
    }
    assert!(laravel_of("REVERB_SERVER_PATH=").borrow().settings().unwrap().is_empty());
}

#[test]
fn invalid_numbers_are_named() {
    for (line, expected) in [
        ("REVERB_SERVER_PORT=high", "REVERB_SERVER_PORT: expected a port, not \"high\""),
        ("REVERB_SERVER_PORT=70000", "REVERB_SERVER_PORT: expected a port, not \"70000\""),
        (
            "REVERB_APP_ACTIVITY_TIMEOUT=30s",
            "REVERB_APP_ACTIVITY_TIMEOUT: expected a whole number of seconds, not \"30s\"",
        ),
    ] {
        let error = laravel_of(line).borrow().settings().unwrap_err().to_string();
        assert_eq!(error, format!("{expected} (from the file of --env-file)"));
    }
}

#[test]
fn redis_is_used_only_if_scaling_is_on() {
    let url = |file: &str| laravel_of(file).borrow().redis().unwrap().map(|(url, _)| url.reveal().to_owned());
    for on in ["true", "(true)", "1", "\"1\"", "yes"] {
        let file = format!("REVERB_SCALING_ENABLED={on}\nREDIS_HOST=h");
        assert_eq!(url(&file).as_deref(), Some("redis://h:6379/0"), "{on}");
    }
    for off in ["false", "(false)", "0", "", "null"] {
        assert_eq!(url(&format!("REVERB_SCALING_ENABLED={off}\nREDIS_HOST=h")), None, "{off}");
    }
    assert_eq!(url("REDIS_HOST=h"), None);
    let owner = laravel_of("REVERB_SCALING_ENABLED=true\nREVERB_SCALING_CHANNEL=shop");
    let (_, prefix) = owner.borrow().redis().unwrap().unwrap();
    let prefix = prefix.unwrap();
    assert_eq!((prefix.key, prefix.value.as_str()), ("redis.prefix", Some("shop")));
}

#[track_caller]
fn check_warnings(file: &str, completed: Option<&Completed>, expected: &[&str]) {
    let warnings = laravel_of(file).borrow().warnings(completed, &["served"]);
    assert_eq!(warnings, expected, "{file}");
}

#[test]
fn variables_without_effect_cause_one_warning_with_an_alternative() {
    check_warnings(
        "REVERB_APP_PING_INTERVAL=60\nREVERB_PULSE_INGEST_INTERVAL=15\nREVERB_TLS_CERT=/x.pem\nREVERB_FOO=1\n\
         PUSHER_BAR=2\nREVERB_APP_ALLOWED_ORIGINS=a.example\nREVERB_SERVER=reverb\nREVERB_EMPTY=\nREVERB_NULL=null\n\
         VITE_REVERB_HOST=h",
        None,
        &[
            "PUSHER_BAR is not used: it has no meaning here (from the file of --env-file)",
            "REVERB_APP_ALLOWED_ORIGINS is not used: set `allowed_origins` of the app, like \
             CARILLON_APPS__0__ALLOWED_ORIGINS=[shop.example] (from the file of --env-file)",
            "REVERB_APP_PING_INTERVAL is not used: `server.activity_timeout` sets the time of server pings too (from the file \
             of --env-file)",
            "REVERB_FOO is not used: it has no meaning here (from the file of --env-file)",
            "REVERB_PULSE_INGEST_INTERVAL is not used: metrics for Prometheus are at /metrics of the admin port (from the \
             file of --env-file)",
            "REVERB_TLS_CERT is not used: set `tls.cert` and `tls.key`, or CARILLON_TLS__CERT and CARILLON_TLS__KEY (from \
             the file of --env-file)",
        ],
    );
}

#[test]
fn variables_of_carillon_and_of_the_application_cause_no_warning() {
    let file = "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\nREVERB_HOST=h\nREVERB_PORT=443\n\
                REVERB_SCHEME=https\nREVERB_SERVER_HOST=0.0.0.0\nREVERB_APP_MAX_CONNECTIONS=5\nREVERB_SCALING_ENABLED=1\n\
                REVERB_MAX_REQUEST_SIZE=1\nREVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=members\nPUSHER_HOST=h\nPUSHER_PORT=1\n\
                PUSHER_SCHEME=http\nPUSHER_APP_CLUSTER=mt1";
    check_warnings(file, Some(&Completed { index: 0, prefix: "REVERB_APP_" }), &[]);
}

#[test]
fn an_app_that_is_not_served_causes_a_warning() {
    let of_reverb = Completed { index: 0, prefix: "REVERB_APP_" };
    let of_pusher = Completed { index: 0, prefix: "PUSHER_APP_" };
    let file = "REVERB_APP_MAX_CONNECTIONS=5\nPUSHER_APP_KEY=k";
    let limit = "REVERB_APP_MAX_CONNECTIONS is not used: no app has the id in REVERB_APP_ID (from the file of \
                 --env-file)";
    let app = "PUSHER_APP_KEY is not used: another app is configured (from the file of --env-file)";
    check_warnings(file, Some(&of_reverb), &[app]);
    check_warnings(file, Some(&of_pusher), &[limit]);
    check_warnings(file, None, &[app, limit]);
    check_warnings("REVERB_APP_KEY=served", None, &[]);
}

#[test]
fn a_different_meaning_of_the_senders_of_client_events_causes_a_warning() {
    let of_reverb = Completed { index: 0, prefix: "REVERB_APP_" };
    let name = "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM";
    check_warnings(
        &format!("{name}=all"),
        Some(&of_reverb),
        &[&format!("{name}: client events are taken from subscribers of the channel only")],
    );
    check_warnings(
        &format!("{name}=member"),
        Some(&of_reverb),
        &[&format!(
            "{name}: client events are off, since \"member\" is neither \"all\" nor \"members\" (from the file of --env-file)"
        )],
    );
    check_warnings(&format!("{name}=none"), Some(&of_reverb), &[]);
}
