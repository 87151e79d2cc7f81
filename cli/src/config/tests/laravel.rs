//! Tests of configurations from Laravel's variables.

use super::*;

#[test]
fn laravels_listener_from_the_process_is_overridden_by_carillon_variables() {
    let environment = &[("REVERB_SERVER_PORT", "5"), ("REVERB_SERVER_HOST", "::1")][..];
    let laravel = Given { env_file: Some("REVERB_SERVER_PORT=2"), environment, ..Given::default() }.load().unwrap();
    assert_eq!((laravel.server.host.as_str(), laravel.server.port), ("::1", 5));
    let ours = Given { env_file: Some("CARILLON_SERVER__PORT=3"), environment, ..Given::default() }.load().unwrap();
    assert_eq!(ours.server.port, 3);
}

#[test]
fn ports_that_kubernetes_sets_for_services_are_ignored() {
    let environment = &[
        ("REVERB_SERVER_PORT", "tcp://10.0.0.1:8080"),
        ("REVERB_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("REVERB_PORT", "tcp://10.0.0.3:80"),
        ("REDIS_PORT", "tcp://10.0.0.2:6379"),
        ("REDIS_SERVICE_HOST", "10.0.0.2"),
    ];
    let text =
        "REVERB_SERVER_PORT=81\nREVERB_SCALING_ENABLED=true\nREDIS_HOST=${REDIS_SERVICE_HOST}\nREDIS_PORT=6380\n";
    let config = Given { env_file: Some(text), environment, ..Given::default() }.load().unwrap();
    assert_eq!((config.server.port, config.redis.address().unwrap()), (81, "10.0.0.2:6380".to_owned()));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn an_invalid_laravel_port_is_named() {
    let expected = "REVERB_SERVER_PORT: expected a port, not \"high\"";
    assert_eq!(refusal(env_file("REVERB_SERVER_PORT=high"), expected), "the file of --env-file");
    let environment = &[("REVERB_SERVER_PORT", "high")];
    assert_eq!(refusal(Given { environment, ..Given::default() }, expected), "the environment");
}

#[test]
fn laravels_variables_configure_an_app() {
    let reverb = "REVERB_APP_ID=123456\nREVERB_APP_KEY=k1\nREVERB_APP_SECRET=\"s 1\"\n";
    let pusher = "PUSHER_APP_ID=007\nPUSHER_APP_KEY=k2\nPUSHER_APP_SECRET=1e3\n";
    app_of(env_file(reverb), ("123456", "k1", "s 1"));
    app_of(env_file(pusher), ("007", "k2", "1e3"));
    app_of(env_file(&format!("{pusher}{reverb}")), ("123456", "k1", "s 1"));
    assert_eq!(env_file(reverb).load().unwrap().server.host, "0.0.0.0");
}

#[test]
fn the_process_overrides_single_laravel_variables() {
    let env_file = Some("REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\n");
    app_of(Given { env_file, environment: &[("REVERB_APP_KEY", "other")], ..Given::default() }, ("1", "other", "s"));
}

#[test]
fn a_configured_app_makes_laravels_variables_irrelevant() {
    app_of(Given { file: Some(SHOP), env_file: Some("REVERB_APP_ID=1\n"), ..Given::default() }, ("shop", "k", "s"));
}

#[test]
fn laravel_variables_without_a_value_are_not_set() {
    let empty = "PUSHER_APP_ID=\nPUSHER_APP_KEY=\nPUSHER_APP_SECRET=\n";
    assert!(env_file(empty).load().unwrap().demo);
}

#[test]
fn an_incomplete_laravel_app_names_what_is_missing() {
    refused(
        env_file("REVERB_APP_ID=1\n"),
        "REVERB_APP_KEY and REVERB_APP_SECRET: expected a value too, as for REVERB_APP_ID",
    );
    refused(
        env_file("PUSHER_APP_ID=1\nPUSHER_APP_KEY=k\nPUSHER_APP_SECRET=\n"),
        "PUSHER_APP_SECRET: expected a value too, as for PUSHER_APP_ID and PUSHER_APP_KEY",
    );
}

#[test]
fn unreadable_lines_of_other_programs_in_an_env_file_are_allowed() {
    let text = "APP_NAME=My Shop\n\u{feff}\nREVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\nFOO\n";
    app_of(env_file(text), ("1", "k", "s"));
    app_of(env_file(&format!("\u{feff}{}", &text[text.find("REVERB").unwrap()..])), ("1", "k", "s"));
}

#[test]
fn an_unreadable_line_that_carillon_uses_is_named_without_its_value() {
    for text in ["REVERB_APP_SECRET=hush hush\n", "REVERB_APP_SECRET=\"hush\n", "REVERB_APP_SECRET=\"a\\hush\"\n"] {
        let error = env_file(&format!("REVERB_APP_ID=1\n{text}")).load().unwrap_err();
        assert!(error.starts_with("REVERB_APP_SECRET: expected "), "{error}");
        assert!(error.contains("(from line 2 of ") && !error.contains("hush"), "{error}");
    }
    let error = env_file("CARILLON_SERVER__PORT=1 2\n").load().unwrap_err();
    assert!(error.starts_with("CARILLON_SERVER__PORT: expected nothing after the value"), "{error}");
}

#[test]
fn values_are_those_that_laravel_reads() {
    for (secret, read) in [
        ("pa$word12", "pa$word12"),
        ("abc#def", "abc"),
        ("ab'c'd", "ab'c'd"),
        ("it's", "it's"),
        (r"a\bcd", r"a\bcd"),
        ("$2y$10$abcdef", "$2y$10$abcdef"),
        ("\"${UNKNOWN}x\"", "${UNKNOWN}x"),
        ("\"${REVERB_APP_KEY}x\"", "kx"),
        ("'\"s\"'", "s"),
        ("true", "1"),
    ] {
        let text = format!("REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET={secret}\n");
        app_of(env_file(&text), ("1", "k", read));
    }
    assert!(env_file("REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\nREVERB_APP_SECRET=\n").load().is_err());
}

#[test]
fn quotes_in_the_environment_are_removed_like_in_laravel() {
    let environment = &[("REVERB_APP_ID", "\"1\""), ("REVERB_APP_KEY", "'k'"), ("REVERB_APP_SECRET", "\"s 1\"")];
    app_of(Given { environment, ..Given::default() }, ("1", "k", "s 1"));
}

#[test]
fn keys_of_openssl_are_valid_and_invalid_keys_are_named_with_their_variable() {
    let env = |key: &str| format!("REVERB_APP_ID=1\nREVERB_APP_KEY={key}\nREVERB_APP_SECRET=MWf+/0=\n");
    let key = "MWfOjqT8cbGdjnb+QjvKoK1N/0qkOrPqKJ2rW7Z2aLo=";
    app_of(env_file(&env(key)), ("1", key, "MWf+/0="));
    let error = env_file(&env("a?b")).load().unwrap_err();
    assert!(error.starts_with("apps.0.key: expected a key that a URL path can contain"), "{error}");
    assert!(error.ends_with("not \"a?b\" (from REVERB_APP_KEY in the file of --env-file)"), "{error}");
    let environment = &[("PUSHER_APP_ID", "a/b"), ("PUSHER_APP_KEY", "k"), ("PUSHER_APP_SECRET", "s")];
    let error = Given { environment, ..Given::default() }.load().unwrap_err();
    assert!(error.ends_with("not \"a/b\" (from PUSHER_APP_ID in the environment)"), "{error}");
}

const REVERB: &str = "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\n";

fn with_reverb(lines: &str) -> Config {
    env_file(&format!("{REVERB}{lines}")).load().unwrap()
}

#[test]
fn an_app_of_reverb_has_the_limits_of_reverb() {
    let config = with_reverb("");
    let limits = &config.apps[0].limits;
    assert_eq!((limits.presence_members, limits.client_events_per_second, limits.batch), (10_000, 200, 100));
    assert_eq!((limits.message_bytes, limits.user_info_bytes), (ByteSize::b(10_000), ByteSize::b(10_000)));
    assert_eq!((limits.event_bytes, limits.connections), (ByteSize::b(10_240), 0));
    assert_eq!(
        (config.server.activity_timeout, config.server.outbox_bytes),
        (Duration::from_secs(30), ByteSize::mib(1))
    );
    assert!(config.apps[0].client_events && config.warnings.is_empty(), "{:?}", config.warnings);

    let pusher = env_file(&REVERB.replace("REVERB", "PUSHER")).load().unwrap();
    assert_eq!(pusher.apps[0].limits, App::with_defaults("1", "k", "s").limits);
    assert_eq!(pusher.server.activity_timeout, Duration::from_secs(120));
}

#[test]
fn limits_of_reverb_are_read() {
    let config = with_reverb(
        "REVERB_APP_MAX_CONNECTIONS=7\nREVERB_APP_MAX_MESSAGE_SIZE=2000\nREVERB_MAX_REQUEST_SIZE=1000000\n\
         REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=none\nREVERB_APP_ACTIVITY_TIMEOUT=45\n\
         REVERB_APP_RATE_LIMITING_ENABLED=true\nREVERB_APP_RATE_LIMIT_MAX_ATTEMPTS=50\n",
    );
    let limits = &config.apps[0].limits;
    assert_eq!((limits.connections, limits.client_events_per_second, limits.batch), (7, 50, 10));
    assert_eq!((limits.message_bytes, limits.event_bytes), (ByteSize::b(2_000), ByteSize::b(1_000_000)));
    assert!(!config.apps[0].client_events);
    assert_eq!(config.server.activity_timeout, Duration::from_secs(45));
    assert_eq!(config.server.outbox_bytes, ByteSize::b(2_000_000));
    let off = "REVERB_APP_RATE_LIMITING_ENABLED=false\nREVERB_APP_RATE_LIMIT_MAX_ATTEMPTS=50\n";
    assert_eq!(with_reverb(off).apps[0].limits.client_events_per_second, 200);
    for (value, is_on) in [("all", true), ("members", true), ("none", false), ("", false), ("false", false)] {
        let config = with_reverb(&format!("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM={value}\n"));
        assert_eq!(config.apps[0].client_events, is_on, "{value}");
    }
    let error = env_file(&format!("{REVERB}REVERB_APP_MAX_CONNECTIONS=0")).load().unwrap_err();
    assert!(error.starts_with("REVERB_APP_MAX_CONNECTIONS: expected at least 1, or no value for no limit"), "{error}");
}

#[test]
fn a_configuration_of_reverb_can_be_printed_and_read_again() {
    let lines = "REVERB_MAX_REQUEST_SIZE=1000000\nREVERB_SERVER_HOST=[::]\nREVERB_SERVER_PATH=ws\n";
    let printed = toml::to_string(&with_reverb(lines)).unwrap();
    let read = file(&printed).load().unwrap();
    assert_eq!(toml::to_string(&read).unwrap(), printed);
    assert_eq!((read.server.host.as_str(), read.server.path_prefix.as_str()), ("::", "/ws"));
}

#[test]
fn reverb_with_scaling_is_a_node_of_a_cluster() {
    let scaling = "REVERB_SCALING_ENABLED=true\nREDIS_HOST=10.0.0.5\nREDIS_PASSWORD=hush\nREDIS_PORT=6379\n";
    let of = |given: Given<'_>, role| given.load_for(role).unwrap().redis;
    let text = format!("{REVERB}{scaling}");
    for role in [Role::Up, Role::Gateway, Role::Publisher] {
        let redis = of(env_file(&text), role);
        assert_eq!((redis.url.reveal(), redis.prefix.as_str()), ("redis://:hush@10.0.0.5:6379/0", "carillon"));
    }
    assert_eq!(of(env_file(&format!("{text}REVERB_SCALING_CHANNEL=shop\n")), Role::Up).prefix, "shop");
    let ours = format!("{text}CARILLON_REDIS__URL=redis://ours\n");
    assert_eq!(of(env_file(&ours), Role::Up).url.reveal(), "redis://ours");
    let settings = Settings { redis: Some(Secret::new("redis://flag")), ..Settings::default() };
    assert_eq!(of(Given { settings, ..env_file(&text) }, Role::Up).url.reveal(), "redis://flag");
    let file = Some("[redis]\nurl = \"redis://file\"\n");
    assert_eq!(of(Given { file, ..env_file(&text) }, Role::Up).url.reveal(), "redis://file");
    assert!(!with_reverb("REVERB_SCALING_ENABLED=false\nREDIS_HOST=10.0.0.5\n").redis.is_set());
    let error = env_file(&format!("{text}REVERB_SCALING_CHANNEL=a:b\n")).load().unwrap_err();
    assert!(error.starts_with("redis.prefix: expected one or more letters"), "{error}");
    assert!(error.ends_with("(from REVERB_SCALING_CHANNEL in the file of --env-file)"), "{error}");
}

#[test]
fn an_unreadable_password_of_redis_stops_the_start_only_if_redis_is_used() {
    let redis = "REDIS_PASSWORD=hush hush\n";
    let config = with_reverb(redis);
    assert!(
        config.warnings[0].contains("REDIS_PASSWORD") && !config.warnings[0].contains("hush"),
        "{:?}",
        config.warnings
    );
    let error = env_file(&format!("{REVERB}{redis}REVERB_SCALING_ENABLED=true\n")).load().unwrap_err();
    assert!(error.starts_with("REDIS_PASSWORD: expected nothing after the value"), "{error}");
}

#[test]
fn unreadable_lines_of_other_programs_are_warnings() {
    let text = format!("APP_NAME=My Shop\nMAIL=\"open\n{REVERB}REVERB_APP_PING_INTERVAL=60\n");
    app_of(env_file(&text), ("1", "k", "s"));
    let warnings = env_file(&text).load().unwrap().warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].starts_with("line 1 of ") && warnings[1].starts_with("line 2 of "), "{warnings:?}");
    assert!(warnings[2].starts_with("REVERB_APP_PING_INTERVAL is not used"), "{warnings:?}");
}

#[test]
fn a_file_completes_the_app_that_laravel_names() {
    let limits = "allowed_origins = [\"shop.example\"]\n[apps.limits]\nbatch = 7\nconnections = 8\n";
    let with = |file: &str, env: &str| {
        Given { file: Some(file), env_file: Some(env), ..Given::default() }.load().map(|config| config.apps)
    };
    for file in [
        format!("[[apps]]\n{limits}"),
        format!("[[apps]]\nid = 1\n{limits}"),
        format!("[[apps]]\nid = \"1\"\nkey = \"k\"\n{limits}"),
        format!("{}[[apps]]\n{limits}", SHOP.replace("\"k\"", "\"k2\"")),
    ] {
        let apps = with(&file, REVERB).unwrap();
        let app = apps.last().unwrap();
        assert_eq!((app.id.as_str(), app.key.as_str(), app.secret.reveal()), ("1", "k", "s"), "{file}");
        assert_eq!((app.limits.batch, app.limits.connections, app.limits.presence_members), (7, 8, 10_000), "{file}");
        assert_eq!(app.allowed_origins, ["shop.example"]);
    }
    let file = format!("[[apps]]\n{limits}");
    let apps = with(&file, &format!("{REVERB}REVERB_APP_MAX_CONNECTIONS=9\n")).unwrap();
    assert_eq!((apps[0].limits.batch, apps[0].limits.connections), (7, 9), "a variable overrides the file");
    let pusher = with(&file, &REVERB.replace("REVERB", "PUSHER")).unwrap();
    assert_eq!((pusher[0].limits.batch, pusher[0].limits.presence_members), (7, 100));
}

#[test]
fn variables_complete_the_app_that_laravel_names() {
    let variables = "CARILLON_APPS__0__LIMITS__CONNECTIONS=5\nCARILLON_APPS__0__SUBSCRIPTION_COUNT=true\n";
    for text in [format!("{REVERB}{variables}"), format!("{variables}{REVERB}REVERB_APP_MAX_CONNECTIONS=9\n")] {
        let config = env_file(&text).load().unwrap();
        let [app] = config.apps.as_slice() else { panic!("{} apps", config.apps.len()) };
        assert_eq!((app.id.as_str(), app.limits.connections, app.subscription_count), ("1", 5, true));
        assert_eq!(app.limits.presence_members, 10_000);
    }
    let file = Some("[[apps]]\nid = \"shop\"\nkey = \"k2\"\nsecret = \"s\"\n");
    let given = Given { file, env_file: Some("CARILLON_APPS__0__LIMITS__BATCH=3\n"), ..Given::default() };
    assert_eq!(given.load().unwrap().apps[0].limits.batch, 3);
}

#[test]
fn a_secret_in_a_file_completes_laravels_id_and_key() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "of the file\n").unwrap();
    let file = format!("[[apps]]\nsecret_file = {path:?}\n");
    for env in ["REVERB_APP_ID=1\nREVERB_APP_KEY=k\n", REVERB] {
        app_of(Given { file: Some(&file), env_file: Some(env), ..Given::default() }, ("1", "k", "of the file"));
    }
}

#[test]
fn an_app_without_credentials_is_named() {
    let given = |file, env| Given { file: Some(file), env_file: env, ..Given::default() };
    let error = given("[[apps]]\nclient_events = false\n", None).load().unwrap_err();
    assert!(
        error.starts_with("apps.0.id: expected a value, here or in REVERB_APP_ID or PUSHER_APP_ID (from "),
        "{error}"
    );
    assert!(error.contains("\napps.0.key: expected a value, here or in REVERB_APP_KEY or PUSHER_APP_KEY"), "{error}");
    let error = given("[[apps]]\nid = \"other\"\n", Some(REVERB)).load().unwrap_err();
    let why = ", since REVERB_APP_ID and REVERB_APP_KEY name another app";
    assert!(error.starts_with("apps.0.key: expected a value") && error.contains(why), "{error}");
    let error = given("[[apps]]\n[[apps]]\n", Some(REVERB)).load().unwrap_err();
    assert_eq!(error, "apps.1: expected an id, a key and a secret: REVERB_APP_ID, … complete only one app");
    let error = given("[[apps]]\nbatch = 1\n", Some("REVERB_APP_ID=1\n")).load().unwrap_err();
    assert_eq!(error, "REVERB_APP_KEY and REVERB_APP_SECRET: expected a value too, as for REVERB_APP_ID");
}

#[test]
fn the_connection_that_laravel_broadcasts_with_is_served() {
    let both = format!("{REVERB}PUSHER_APP_ID=2\nPUSHER_APP_KEY=k2\nPUSHER_APP_SECRET=s2\n");
    app_of(env_file(&both), ("1", "k", "s"));
    app_of(env_file(&format!("{both}BROADCAST_CONNECTION=reverb\n")), ("1", "k", "s"));
    app_of(env_file(&format!("{both}BROADCAST_CONNECTION=pusher\n")), ("2", "k2", "s2"));
    app_of(env_file(&format!("{both}BROADCAST_DRIVER=pusher\n")), ("2", "k2", "s2"));
    app_of(env_file(&format!("{REVERB}BROADCAST_CONNECTION=pusher\n")), ("1", "k", "s"));
}

#[test]
fn ipv6_addresses_may_have_brackets_in_all_sources() {
    let settings = Settings { host: Some("[::1]".into()), ..Settings::default() };
    assert_eq!(Given { settings, ..Given::default() }.load().unwrap().server.host, "::1");
    assert_eq!(with_reverb("REVERB_SERVER_HOST=[::]").server.host, "::");
    assert_eq!(with_reverb("REVERB_SERVER_HOST=::").server.host, "::");
    let config = with_reverb("CARILLON_SERVER__HOST=[::1]\nCARILLON_ADMIN__HOST=[::1]\nCARILLON_PEERS__HOST=[::]");
    assert_eq!((config.server.host.as_str(), config.admin.host.as_str()), ("::1", "::1"));
    assert_eq!(config.peers.host, "::");
    let text = format!("{SHOP}[server]\nhost = \"[::1]\"\n[admin]\nhost = \"[::]\"\n");
    let config = file(&text).load().unwrap();
    assert_eq!((config.server.host.as_str(), config.admin.host.as_str()), ("::1", "::"));
}
