use super::*;

fn banner(config: &Config, public: &str) -> String {
    banner_of(Role::Up, config, public, None)
}

fn banner_of(role: Role, config: &Config, public: &str, redis: Option<&str>) -> String {
    let banner = Banner {
        role,
        config,
        public: public.parse().unwrap(),
        admin: "127.0.0.1:9090".parse().unwrap(),
        peers: redis.map(|_| "0.0.0.0:8082".parse().unwrap()),
        inherited: Vec::new(),
        redis: redis.map(str::to_owned),
        connections_max: (role != Role::Publisher).then_some(19_736),
        descriptors_max: 20_000,
    };
    banner.text()
}

fn demo() -> Config {
    Config { apps: vec![App::with_defaults(DEMO_ID, DEMO_KEY, DEMO_SECRET)], demo: true, ..Config::default() }
}

#[test]
fn the_demo_banner_can_be_pasted_into_a_page_and_into_laravel() {
    let expected = format!(
        "Carillon {}

  public  http://127.0.0.1:8080   WebSocket and HTTP API
  admin   http://127.0.0.1:9090   /metrics /livez /readyz
  limit   19736 connections (20000 descriptors)
  apps    app-id (demo: any client that reaches this port can use it; bound to 127.0.0.1)

  // paste into your page:
  new Pusher('app-key', {{ wsHost: '127.0.0.1', wsPort: 8080, httpHost: '127.0.0.1', httpPort: 8080,
    enabledTransports: ['ws', 'xhr_streaming', 'xhr_polling'], forceTLS: false, cluster: '' }})

  # paste into the .env of Laravel:
  BROADCAST_CONNECTION=reverb
  REVERB_APP_ID=app-id
  REVERB_APP_KEY=app-key
  REVERB_APP_SECRET=app-secret
  REVERB_HOST=127.0.0.1
  REVERB_PORT=8080
  REVERB_SCHEME=http

",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(banner(&demo(), "127.0.0.1:8080"), expected);
}

#[test]
fn a_configured_apps_secret_is_never_printed() {
    let config = Config { apps: vec![App::with_defaults("shop", "shop-key", "hush")], ..Config::default() };
    let text = banner(&config, "0.0.0.0:8080");
    assert!(text.contains("  apps    shop\n") && text.contains("new Pusher('shop-key'"), "{text}");
    assert!(!text.contains("hush") && !text.contains("demo"), "{text}");
}

#[test]
fn a_page_reaches_a_server_on_all_addresses_at_its_own_host() {
    let mut config = Config { apps: vec![App::with_defaults("shop", "shop-key", "hush")], ..Config::default() };
    config.server.path_prefix = "/ws".into();
    let text = banner(&config, "[::]:8080");
    assert!(text.contains("  public  http://[::]:8080/ws   "), "{text}");
    assert!(text.contains("{ wsHost: location.hostname, wsPort: 8080, httpHost: location.hostname, httpPort: 8080, wsPath: '/ws', httpPath: '/ws/pusher',"), "{text}");
}

#[test]
fn a_key_is_quoted_for_javascript() {
    let config = Config { apps: vec![App::with_defaults("shop", "it's+/=", "hush")], ..Config::default() };
    assert!(banner(&config, "127.0.0.1:8080").contains("new Pusher('it\\'s+/=',"));
}

#[test]
fn at_most_five_apps_are_listed() {
    let apps = (1..=7).map(|n| App::with_defaults(&format!("app{n}"), &format!("key{n}"), "hush")).collect();
    let text = banner(&Config { apps, ..Config::default() }, "0.0.0.0:8080");
    assert!(text.contains("  apps    app1, app2, app3, app4, app5 and 2 more\n"), "{text}");
    assert!(!text.contains("Pusher("), "{text}");
}

#[test]
fn an_ipv6_host_has_brackets_in_urls() {
    let text = banner(&demo(), "[::1]:8080");
    assert!(text.contains("  public  http://[::1]:8080   "), "{text}");
    assert!(text.contains("{ wsHost: '[::1]', wsPort: 8080, "), "{text}");
    assert!(text.contains("\n  REVERB_HOST=[::1]\n"), "{text}");
    assert!(text.contains("bound to ::1)"), "{text}");
}

#[test]
fn a_role_of_a_cluster_shows_its_services_and_the_address_of_redis() {
    let config = Config { apps: vec![App::with_defaults("shop", "shop-key", "hush")], ..Config::default() };
    let text = banner_of(Role::Gateway, &config, "0.0.0.0:8080", Some("127.0.0.1:6379"));
    assert!(text.contains("http://0.0.0.0:8080   WebSocket\n"), "{text}");
    assert!(text.contains("  redis   127.0.0.1:6379\n") && text.contains("  peers   http://0.0.0.0:8082 "), "{text}");
    let text = banner_of(Role::Publisher, &config, "0.0.0.0:8081", Some("127.0.0.1:6379"));
    assert!(text.contains("http://0.0.0.0:8081   HTTP API\n"), "{text}");
    assert!(!text.contains("limit") && !text.contains("Pusher("), "{text}");
}

#[test]
fn limits_that_differ_from_pushers_are_listed() {
    let mut shop = App::with_defaults("shop", "shop-key", "hush");
    let text = |apps: Vec<App>| banner(&Config { apps, ..Config::default() }, "0.0.0.0:8080");
    assert!(!text(vec![shop.clone()]).contains("  limits"));
    shop.limits.presence_members = 10_000;
    shop.limits.user_info_bytes = bytesize::ByteSize::b(10_000);
    let row = "presence_members 10000, user_info_bytes 10000   (others are Pusher's)\n";
    assert!(text(vec![shop.clone()]).contains(&format!("  apps    shop\n  limits  {row}")));
    let two = text(vec![shop, App::with_defaults("b", "k", "hush")]);
    assert!(two.contains(&format!("  apps    shop, b\n  limits  shop: {row}")) && !two.contains("b: "), "{two}");
}
