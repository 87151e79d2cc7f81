//! What `doctor` says of a Redis, and that it, the nodes and `deploy/redis/users.acl` agree on what they give it.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use tempfile::TempDir;
use tests::command::{Finished, run, workspace};
use tests::{Redis, Setup};

const PASSWORD: &str = "pass-of-the-doctor";

/// A Redis, and a configuration with webhooks.
struct Practice {
    redis: Redis,
    place: TempDir,
}

impl Practice {
    async fn open() -> Self {
        let place = tempfile::tempdir().expect("a folder");
        let setup = Setup::default().more("[[apps.webhooks]]\nurl = \"http://127.0.0.1:9/hooks\"");
        std::fs::write(place.path().join("carillon.toml"), setup.toml()).expect("the file can be written");
        Self { redis: Redis::start().await, place }
    }

    async fn see(&self, url: &str) -> Finished {
        let args = ["doctor", "--role", "gateway", "--config", "carillon.toml", "--redis", url];
        run(self.place.path(), &args, &[]).await
    }

    /// As the user of `deploy/redis/users.acl`, but for these rules.
    async fn see_as_node(&self, but: &[&str]) -> Finished {
        let (name, rules) = user_of_deploy();
        let mut command = vec!["ACL", "SETUSER", &name, "reset"];
        command.extend(rules.iter().map(String::as_str));
        command.extend(but);
        let _: redis::Value = self.redis.query(&command).await;
        self.see(&self.redis.url().replacen("redis://", &format!("redis://{name}:{PASSWORD}@"), 1)).await
    }
}

/// The name and the rules of the user, with a password that is known here.
fn user_of_deploy() -> (String, Vec<String>) {
    let text = std::fs::read_to_string(workspace().join("deploy/redis/users.acl")).expect("the users of deploy");
    let line = text.lines().find(|line| line.starts_with("user carillon ")).expect("the user of nodes");
    let mut words = line.split_whitespace().skip(1);
    let name = words.next().expect("a name").to_owned();
    let rules = words.map(|word| if word.starts_with('#') { format!(">{PASSWORD}") } else { word.to_owned() });
    (name, rules.collect())
}

/// Names between `before` and the quote after it, as they are in a text.
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

/// Every command that nodes send themselves or through scripts.
fn commands_of_nodes() -> BTreeSet<String> {
    let mut texts = Vec::new();
    for place in ["bus", "redis", "roster", "webhook"] {
        collect(&workspace().join("shared/src").join(place), &mut texts);
    }
    // Of the libraries: of transactions, of scripts, and of the pool, which asks UNWATCH and PING of a connection.
    let mut names = BTreeSet::from(["MULTI", "EXEC", "EVALSHA", "SCRIPT", "UNWATCH", "PING"].map(str::to_owned));
    for text in texts {
        for before in ["cmd(\"", "redis.call('", "redis.pcall('"] {
            names.extend(quoted(&text, before));
        }
    }
    names
}

/// Every command that the doctor tries.
fn commands_of_doctor() -> BTreeSet<String> {
    let place = workspace().join("cli/src/doctor");
    let mut texts = Vec::new();
    collect(&place.join("redis.rs"), &mut texts);
    collect(&place.join("redis/commands.rs"), &mut texts);
    texts.iter().flat_map(|text| ["cmd(\"", "with(\""].into_iter().flat_map(|before| quoted(text, before))).collect()
}

#[test]
fn the_doctor_tries_every_command_that_nodes_use_and_no_other() {
    let (nodes, doctor) = (commands_of_nodes(), commands_of_doctor());
    assert!(nodes.len() > 35, "the commands were not found: {nodes:?}");
    let missing: Vec<&String> = nodes.difference(&doctor).collect();
    assert!(missing.is_empty(), "nodes use these, and the doctor does not try them: {missing:?}");
    let asked: BTreeSet<String> = ["CONFIG", "INFO"].map(str::to_owned).into();
    let further: Vec<&String> = doctor.difference(&nodes).filter(|name| !asked.contains(*name)).collect();
    assert!(further.is_empty(), "the doctor tries these, which no node uses: {further:?}");
}

/// What containers of commands are allowed: these of theirs, and no others.
const PARTS: [&str; 3] = ["script|load", "xgroup|create", "xinfo|groups"];

#[tokio::test]
async fn the_user_of_deploy_may_do_what_nodes_and_the_doctor_do_and_nothing_else() {
    let practice = Practice::open().await;
    let finished = practice.see_as_node(&[]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    let name = user_of_deploy().0;
    let user: HashMap<String, redis::Value> = practice.redis.query(&["ACL", "GETUSER", &name]).await;
    let text = |field: &str| -> String {
        let value = user.get(field).unwrap_or_else(|| panic!("no {field} in {user:?}"));
        redis::from_redis_value_ref(value).expect("a text")
    };
    assert_eq!((text("keys").as_str(), text("channels").as_str()), ("~carillon:*", "&carillon:*"));
    // As Redis itself has it, whatever the rules were.
    let commands = text("commands");
    let mut rules = commands.split(' ');
    assert_eq!(rules.next(), Some("-@all"), "{commands}");
    let allowed: BTreeSet<&str> = rules.map(|rule| rule.strip_prefix('+').unwrap_or(rule)).collect();
    // INFO is what the doctor reads; SELECT is said where the URL names a database.
    let mut needed: BTreeSet<String> = commands_of_nodes().iter().map(|name| name.to_lowercase()).collect();
    needed.extend(["info", "select"].map(str::to_owned));
    let needed: BTreeSet<&str> = needed
        .iter()
        .map(|name| PARTS.into_iter().find(|part| part.split('|').next() == Some(name)).unwrap_or(name))
        .collect();
    assert_eq!(allowed, needed);
    let log: Vec<redis::Value> = practice.redis.run("ACL LOG").await;
    // CONFIG alone, for which the doctor asks in vain, and says so.
    let objects: BTreeSet<String> = log
        .iter()
        .map(|entry| {
            let entry: HashMap<String, redis::Value> = redis::from_redis_value_ref(entry).expect("an entry");
            redis::from_redis_value_ref(&entry["object"]).expect("a text")
        })
        .collect();
    assert_eq!(objects, BTreeSet::from(["config|get".to_owned()]));
}

#[test]
fn the_users_rights_in_the_operators_page_are_those_of_deploy() {
    let page = std::fs::read_to_string(workspace().join("docs/OPERATIONS.md")).expect("the operators' page");
    let block = page.split("```").find(|block| block.trim_start().starts_with("user carillon ")).expect("the user");
    let told: Vec<&str> = block.split_whitespace().skip(2).filter(|word| !word.starts_with('#')).collect();
    let rules = user_of_deploy().1;
    let rules: Vec<&str> = rules.iter().map(String::as_str).filter(|word| !word.starts_with('>')).collect();
    assert_eq!(told, rules);
}

#[tokio::test]
async fn the_user_of_deploy_may_do_all_that_nodes_do_and_each_right_that_is_missing_is_named() {
    let practice = Practice::open().await;
    let finished = practice.see_as_node(&[]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    for line in ["ok       redis rights", "ok       redis eviction noeviction", "warning  redis buffers"] {
        assert!(finished.stdout.contains(line), "no {line:?} in\n{}", finished.stdout);
    }
    assert_eq!(practice.redis.keys("*").await, [""; 0], "nothing is left behind");
    for name in commands_of_nodes().iter().filter(|name| *name != "PING") {
        let finished = practice.see_as_node(&[&format!("-{}", name.to_lowercase())]).await;
        assert_eq!(finished.code, 1, "without {name}: {finished:?}");
        let told = finished.stdout.lines().find(|line| line.starts_with("problem  redis rights")).unwrap_or_default();
        let named: Vec<&str> = told.rsplit(": ").next().unwrap_or_default().split(", ").collect();
        let expected = if name == "SCRIPT" { "SCRIPT LOAD" } else { name };
        assert_eq!(named, [expected], "{}", finished.stdout);
    }
    let finished = practice.see_as_node(&["resetchannels", "&other:*"]).await;
    let told = finished.stdout.lines().find(|line| line.starts_with("problem  redis rights")).unwrap_or_default();
    assert!(told.contains("SUBSCRIBE") && told.contains("PUBLISH"), "{}", finished.stdout);
    let finished = practice.see_as_node(&["resetkeys", "~other:*"]).await;
    assert!(finished.stdout.contains("problem  redis rights"), "{}", finished.stdout);
    assert!(!finished.stdout.contains(PASSWORD), "{}", finished.stdout);
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_is_told_with_what_to_do() {
    let practice = Practice::open().await;
    let expect = async |words: &str| {
        let finished = practice.see(&practice.redis.url()).await;
        assert_eq!(finished.code, 1, "{finished:?}");
        let told = finished.stdout.lines().find(|line| line.starts_with("problem  redis commands")).unwrap_or_default();
        assert!(told.contains(words) && told.contains("SADD"), "no {words:?} in\n{}", finished.stdout);
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
    expect("lead to the master").await;
    let _: redis::Value = practice.redis.run("REPLICAOF NO ONE").await;
    let finished = practice.see(&practice.redis.url()).await;
    assert_eq!(finished.code, 0, "{finished:?}");
}
