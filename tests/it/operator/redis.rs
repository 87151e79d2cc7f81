//! The checks of Redis in `doctor`. It, the nodes and `deploy/redis/users.acl` must agree on the required commands.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tests::command::{Finished, run, workspace};
use tests::fallback::{HttpSession, TRANSPORTS};
use tests::server::{Launch, Role};
use tests::{HttpClient, PATIENCE, Receiver, Redis, Setup, eventually_within};

const PASSWORD: &str = "pass-of-the-doctor";

/// A Redis, and a configuration with webhooks.
struct Practice {
    redis: Redis,
    folder: TempDir,
}

impl Practice {
    async fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let setup = Setup::default().more("[[apps.webhooks]]\nurl = \"http://127.0.0.1:9/hooks\"");
        std::fs::write(folder.path().join("carillon.toml"), setup.toml()).expect("the file can be written");
        Self { redis: Redis::start().await, folder }
    }

    async fn see(&self, url: &str) -> Finished {
        let args = ["doctor", "--role", "gateway", "--config", "carillon.toml", "--redis", url];
        run(self.folder.path(), &args, &[]).await
    }

    /// Connects as the user of `deploy/redis/users.acl`, with these additional rules.
    async fn observe_as_node(&self, but: &[&str]) -> Finished {
        let (name, rules) = user_of_deploy();
        let mut command = vec!["ACL", "SETUSER", &name, "reset"];
        command.extend(rules.iter().map(String::as_str));
        command.extend(but);
        let _: redis::Value = self.redis.query(&command).await;
        self.see(&self.url_of_node()).await
    }

    fn url_of_node(&self) -> String {
        let name = user_of_deploy().0;
        self.redis.url().replacen("redis://", &format!("redis://{name}:{PASSWORD}@"), 1)
    }

    /// Returns every command that Redis allows the user, after it has evaluated the rules.
    async fn allowed(&self) -> BTreeSet<String> {
        let name = user_of_deploy().0;
        let user: HashMap<String, redis::Value> = self.redis.query(&["ACL", "GETUSER", &name]).await;
        assert_eq!((text_in(&user, "keys"), text_in(&user, "channels")), ("~carillon:*".into(), "&carillon:*".into()));
        let mut allowed = BTreeSet::new();
        let rules = text_in(&user, "commands");
        for rule in rules.split(' ') {
            let (sign, name) = rule.split_at(1);
            // If most of a category is allowed, Redis lists the category and then the exceptions.
            let names: Vec<String> = match name.strip_prefix('@') {
                Some("all") if sign == "-" => Vec::new(),
                Some(category) => self.redis.query(&["ACL", "CAT", category]).await,
                None => vec![name.to_owned()],
            };
            for name in names {
                if sign == "+" {
                    allowed.insert(name)
                } else {
                    allowed.remove(&name)
                };
            }
        }
        allowed
    }

    /// Returns the commands that Redis has refused to any client.
    async fn refused(&self) -> BTreeSet<String> {
        let log: Vec<HashMap<String, redis::Value>> = self.redis.run("ACL LOG").await;
        log.iter().map(|entry| text_in(entry, "object")).collect()
    }
}

fn text_in(answer: &HashMap<String, redis::Value>, field: &str) -> String {
    let value = answer.get(field).unwrap_or_else(|| panic!("no {field} in {answer:?}"));
    redis::from_redis_value_ref(value).expect("a text")
}

/// Returns the name and the rules of the user, with a known password.
fn user_of_deploy() -> (String, Vec<String>) {
    let text = std::fs::read_to_string(workspace().join("deploy/redis/users.acl")).expect("the users of deploy");
    let line = text.lines().find(|line| line.starts_with("user carillon ")).expect("the user of nodes");
    let mut words = line.split_whitespace().skip(1);
    let name = words.next().expect("a name").to_owned();
    let rules = words.map(|word| if word.starts_with('#') { format!(">{PASSWORD}") } else { word.to_owned() });
    (name, rules.collect())
}

/// Returns the names between `before` and the following quote in a text.
fn quoted(text: &str, before: &str) -> BTreeSet<String> {
    let end = |rest: &str| rest.find(['"', '\'']).map(|end| rest[..end].to_owned());
    let names = text.split(before).skip(1).filter_map(end);
    names.filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase())).collect()
}

fn collect(path: &Path, texts: &mut Vec<String>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder") {
            collect(&entry.expect("an entry").path(), texts);
        }
    } else if !path.ends_with("tests.rs") {
        texts.push(std::fs::read_to_string(path).expect("sources are UTF-8"));
    }
}

/// Returns every command that nodes send themselves or through scripts.
fn node_commands() -> BTreeSet<String> {
    let mut texts = Vec::new();
    for part in ["bus", "redis", "roster", "webhook"] {
        collect(&workspace().join("shared/src/cluster").join(part), &mut texts);
    }
    // Commands of libraries: for transactions, for scripts, and for the check of a pooled connection.
    let mut names = BTreeSet::from(["MULTI", "EXEC", "EVALSHA", "SCRIPT", "UNWATCH", "PING"].map(str::to_owned));
    for text in texts {
        for before in ["cmd(\"", "redis.call('", "redis.pcall('"] {
            names.extend(quoted(&text, before));
        }
    }
    // Every user can run HELLO. A node also works if its user cannot run INFO.
    names.remove("HELLO");
    names.remove("INFO");
    names
}

/// Returns every command that the doctor tries.
fn doctor_commands() -> BTreeSet<String> {
    let doctor = workspace().join("cli/src/commands/doctor");
    let mut texts = Vec::new();
    collect(&doctor.join("redis.rs"), &mut texts);
    collect(&doctor.join("redis/commands.rs"), &mut texts);
    texts.iter().flat_map(|text| ["cmd(\"", "with(\""].into_iter().flat_map(|before| quoted(text, before))).collect()
}

#[test]
fn the_doctor_tries_every_command_that_nodes_use_and_no_other() {
    let (nodes, doctor) = (node_commands(), doctor_commands());
    assert!(nodes.len() > 35, "the commands were not found: {nodes:?}");
    let missing: Vec<&String> = nodes.difference(&doctor).collect();
    assert!(missing.is_empty(), "nodes use these, and the doctor does not try them: {missing:?}");
    let asked: BTreeSet<String> = ["CONFIG", "INFO"].map(str::to_owned).into();
    let further: Vec<&String> = doctor.difference(&nodes).filter(|name| !asked.contains(*name)).collect();
    assert!(further.is_empty(), "the doctor tries these, which no node uses: {further:?}");
}

/// The only allowed subcommands of container commands.
const PARTS: [&str; 4] = ["script|load", "xgroup|create", "xgroup|destroy", "xinfo|groups"];

#[tokio::test]
async fn the_redis_user_of_deploy_has_exactly_the_required_rights() {
    let practice = Practice::open().await;
    let finished = practice.observe_as_node(&[]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    let allowed = practice.allowed().await;
    // The doctor and nodes read INFO. The library sends SELECT if the URL names a database.
    let names = node_commands().into_iter().chain(["INFO", "SELECT"].map(str::to_owned));
    let parts = |name: String| {
        let parts: Vec<String> =
            PARTS.into_iter().filter(|part| part.split('|').next() == Some(&name)).map(str::to_owned).collect();
        if parts.is_empty() { vec![name] } else { parts }
    };
    let needed: BTreeSet<String> = names.map(|name| name.to_lowercase()).flat_map(parts).collect();
    assert_eq!(allowed, needed);
    assert_eq!(
        practice.refused().await,
        BTreeSet::from(["config|get".to_owned()]),
        "the command was refused and the doctor continued"
    );
}

/// Uses every feature of a cluster: presence, cache channels, webhooks, users, fallback sessions across
/// gateways, and a crashed gateway.
#[tokio::test]
async fn a_cluster_runs_as_the_redis_user_of_deploy() {
    let practice = Practice::open().await;
    practice.observe_as_node(&[]).await;
    let _: redis::Value = practice.redis.run("ACL LOG RESET").await;
    let receiver = Receiver::start().await;
    let setup = Setup::default().more(&receiver.endpoint(""));
    let start = async |role: Role| {
        let server = Launch::new(role).setup(&setup).args(&["--redis", &practice.url_of_node()]).start().await;
        server.ready().await;
        server
    };
    let (first, second, publisher) =
        (start(Role::Gateway).await, start(Role::Gateway).await, start(Role::Publisher).await);
    let (mut ana, mut bo) = (first.client().await, second.client().await);
    ana.sign_in(&json!({ "id": "ana" })).await;
    assert_eq!(ana.join("presence-room", "ana").await, ["ana"]);
    assert_eq!(bo.join("presence-room", "bo").await, ["ana", "bo"]);
    ana.expect("pusher_internal:member_added").await;
    publisher.publish("cache-last", "e", "kept").await;
    bo.subscribe("cache-last").await;
    bo.expect_event("cache-last", "e", "kept").await;
    ana.subscribe("cache-other").await;
    ana.expect("pusher:cache_miss").await;
    ana.unsubscribe("cache-other");
    for transport in TRANSPORTS {
        let session = HttpSession::over(&[&first, &second], &[&second, &first]);
        let mut client = HttpClient::with(session, transport).await;
        client.join("presence-http", "cy").await;
        for number in 0..10 {
            publisher.publish("presence-http", "e", &number.to_string()).await;
            client.expect_event("presence-http", "e", &number.to_string()).await;
        }
    }
    assert!(second.metric("carillon_fallback_forwarded_total{result=\"answered\"}").await > 0.0);
    for path in [
        "/channels?info=subscription_count",
        "/channels/presence-room?info=user_count",
        "/channels/presence-room/users",
    ] {
        publisher.get(path).await;
    }
    assert_eq!(publisher.get("/channels/cache-last?info=cache").await["cache"]["data"], "kept");
    // Its members are swept and their departure is delivered.
    second.kill().await;
    let is_swept = async || {
        receiver
            .delivered()
            .iter()
            .any(|delivered| delivered.name == "member_removed" && delivered.event["user_id"] == "bo")
    };
    eventually_within(PATIENCE, "the departure of the crashed gateway's member is delivered", is_swept).await;
    ana.expect("pusher_internal:member_removed").await;
    assert_eq!(publisher.post("/users/ana/terminate_connections", &json!({})).await.status, 200);
    ana.expect_close(4009).await;
    std::fs::write(practice.folder.path().join("carillon.toml"), setup.toml()).expect("the file can be written");
    let args = ["webhooks", "list", "--config", "carillon.toml", "--redis", &practice.url_of_node()];
    let finished = run(practice.folder.path(), &args, &[]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    for server in [&first, &publisher] {
        assert_eq!(server.metric("carillon_redis_command_errors_total{kind=\"refused\"}").await, 0.0);
    }
    for server in [first, publisher] {
        let log = server.stop().await;
        assert!(!log.contains("NOPERM"), "{log}");
    }
    let refused = practice.refused().await;
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn the_operations_page_lists_the_rights_of_the_redis_user_of_deploy() {
    let page = std::fs::read_to_string(workspace().join("docs/OPERATIONS.md")).expect("the operators' page");
    let block = page.split("```").find(|block| block.trim_start().starts_with("user carillon ")).expect("the user");
    let delivered: Vec<&str> = block.split_whitespace().skip(2).filter(|word| !word.starts_with('#')).collect();
    let rules = user_of_deploy().1;
    let rules: Vec<&str> = rules.iter().map(String::as_str).filter(|word| !word.starts_with('>')).collect();
    assert_eq!(delivered, rules);
}

#[tokio::test]
async fn the_doctor_names_each_right_that_the_redis_user_lacks() {
    let practice = Practice::open().await;
    let finished = practice.observe_as_node(&[]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    for line in ["ok       redis rights", "ok       redis eviction noeviction", "warning  redis buffers"] {
        assert!(finished.stdout.contains(line), "no {line:?} in\n{}", finished.stdout);
    }
    assert_eq!(practice.redis.keys("*").await, [""; 0], "doctor leaves no keys");
    for name in node_commands().iter().filter(|name| *name != "PING") {
        let finished = practice.observe_as_node(&[&format!("-{}", name.to_lowercase())]).await;
        assert_eq!(finished.code, 1, "without {name}: {finished:?}");
        let delivered =
            finished.stdout.lines().find(|line| line.starts_with("problem  redis rights")).unwrap_or_default();
        let named: Vec<&str> = delivered.rsplit(": ").next().unwrap_or_default().split(", ").collect();
        let expected = if name == "SCRIPT" { "SCRIPT LOAD" } else { name };
        assert_eq!(named, [expected], "{}", finished.stdout);
    }
    let finished = practice.observe_as_node(&["resetchannels", "&other:*"]).await;
    let delivered = finished.stdout.lines().find(|line| line.starts_with("problem  redis rights")).unwrap_or_default();
    assert!(delivered.contains("SUBSCRIBE") && delivered.contains("PUBLISH"), "{}", finished.stdout);
    let finished = practice.observe_as_node(&["resetkeys", "~other:*"]).await;
    assert!(finished.stdout.contains("problem  redis rights"), "{}", finished.stdout);
    assert!(!finished.stdout.contains(PASSWORD), "{}", finished.stdout);
}

#[tokio::test]
async fn a_read_only_redis_is_reported_with_a_remedy() {
    let practice = Practice::open().await;
    let expect = async |words: &str| {
        let finished = practice.see(&practice.redis.url()).await;
        assert_eq!(finished.code, 1, "{finished:?}");
        let delivered =
            finished.stdout.lines().find(|line| line.starts_with("problem  redis commands")).unwrap_or_default();
        assert!(delivered.contains(words) && delivered.contains("SADD"), "no {words:?} in\n{}", finished.stdout);
        assert_eq!(finished.stdout.matches("redis commands").count(), 1, "{}", finished.stdout);
        assert!(!finished.stdout.contains("redis rights"), "{}", finished.stdout);
    };
    let _: redis::Value = practice.redis.run("CONFIG SET maxmemory 1").await;
    expect("raise maxmemory").await;
    let _: redis::Value = practice.redis.run("CONFIG SET maxmemory 0").await;
    let _: redis::Value = practice.redis.run("CONFIG SET min-replicas-to-write 1").await;
    expect("min-replicas-to-write").await;
    let _: redis::Value = practice.redis.run("CONFIG SET min-replicas-to-write 0").await;
    let _: redis::Value = practice.redis.run("REPLICAOF 127.0.0.1 1").await;
    expect("name the master").await;
    let _: redis::Value = practice.redis.run("REPLICAOF NO ONE").await;
    let finished = practice.see(&practice.redis.url()).await;
    assert_eq!(finished.code, 0, "{finished:?}");
}
