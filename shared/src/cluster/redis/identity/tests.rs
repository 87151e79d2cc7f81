use redis::ServerError;

use super::*;
use crate::cluster::redis::server::RedisServer;

fn text(text: &str) -> Value {
    Value::BulkString(text.into())
}

fn refused() -> Value {
    let value = redis::parse_redis_value(b"-NOPERM this user has no permissions to run the command\r\n").unwrap();
    assert!(matches!(&value, Value::ServerError(ServerError { .. })));
    value
}

fn role(parts: &[&str]) -> Value {
    Value::Array(parts.iter().map(|part| text(part)).collect())
}

fn hello(mode: &str, role: &str) -> Value {
    Value::Map(vec![
        (text("server"), text("redis")),
        (text("proto"), Value::Int(3)),
        (text("mode"), text(mode)),
        (text("role"), text(role)),
    ])
}

#[test]
fn the_role_and_the_mode_decide() {
    let info = text("# Server\r\nredis_mode:standalone\r\nrun_id:0123abcd\r\ntcp_port:6379\r\n");
    let of_cluster = text("# Server\r\nredis_mode:cluster\r\nrun_id:0123abcd\r\n");
    for (role, hello, info, expected) in [
        (role(&["master"]), hello("standalone", "master"), &info, None),
        (
            role(&["slave", "10.0.0.2", "6379", "connected"]),
            hello("standalone", "replica"),
            &info,
            Some(Refusal::Replica),
        ),
        // Each of them alone.
        (role(&["slave", "10.0.0.2", "6379", "connect"]), refused(), &refused(), Some(Refusal::Replica)),
        (refused(), hello("standalone", "replica"), &refused(), Some(Refusal::Replica)),
        (refused(), hello("cluster", "master"), &refused(), Some(Refusal::ClusterNode)),
        (refused(), refused(), &of_cluster, Some(Refusal::ClusterNode)),
        (role(&["sentinel"]), refused(), &refused(), Some(Refusal::Sentinel)),
        (refused(), hello("sentinel", "sentinel"), &refused(), Some(Refusal::Sentinel)),
        // A server that says nothing of itself, or something else, shows what it is when it is written to.
        (refused(), refused(), &refused(), None),
        (role(&[]), Value::Int(1), &text("nonsense"), None),
        (Value::Okay, Value::Okay, &Value::Okay, None),
        (role(&["active-replica"]), refused(), &info, None),
    ] {
        let identity = Identity::read(&role, &hello, info);
        assert_eq!(identity.refusal, expected, "{role:?} {hello:?} {info:?}");
    }
    let identity = Identity::read(&role(&["slave", "10.0.0.2", "6379"]), &refused(), &info);
    assert_eq!(identity.run_id, Some(RunId::from("0123abcd")));
    assert!(identity.words.contains("10.0.0.2:6379"), "{}", identity.words);
    assert_eq!(Identity::read(&role(&["master"]), &refused(), &refused()).run_id, None);
}

#[tokio::test]
async fn a_real_server_says_what_it_is() {
    let server = RedisServer::start();
    let mut connection = server.connect().await;
    let master = Identity::ask(&mut connection).await.unwrap();
    assert_eq!(master.refusal, None);
    assert!(master.run_id.is_some());
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec_async(&mut connection).await.unwrap();
    let replica = Identity::ask(&mut connection).await.unwrap();
    assert_eq!((replica.refusal, &replica.run_id), (Some(Refusal::Replica), &master.run_id));
    assert_eq!(AskRole.send(&mut connection).await.unwrap().refusal, Some(Refusal::Replica));
    // A user who may ask for neither.
    redis::cmd("ACL")
        .arg("SETUSER")
        .arg("default")
        .arg("-role")
        .arg("-info")
        .exec_async(&mut connection)
        .await
        .unwrap();
    let replica = Identity::ask(&mut connection).await.unwrap();
    assert_eq!((replica.refusal, replica.run_id), (Some(Refusal::Replica), None));
}
