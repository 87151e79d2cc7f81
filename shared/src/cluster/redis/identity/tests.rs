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
fn the_role_and_the_mode_decide_whether_a_server_is_usable() {
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
        // Only one of the commands is allowed.
        (role(&["slave", "10.0.0.2", "6379", "connect"]), refused(), &refused(), Some(Refusal::Replica)),
        (refused(), hello("standalone", "replica"), &refused(), Some(Refusal::Replica)),
        (refused(), hello("cluster", "master"), &refused(), Some(Refusal::ClusterNode)),
        (refused(), refused(), &of_cluster, Some(Refusal::ClusterNode)),
        (role(&["sentinel"]), refused(), &refused(), Some(Refusal::Sentinel)),
        (refused(), hello("sentinel", "sentinel"), &refused(), Some(Refusal::Sentinel)),
        // A server with an unknown role counts as a master until a write fails.
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
    assert!(identity.description.contains("10.0.0.2:6379"), "{}", identity.description);
    assert_eq!(Identity::read(&role(&["master"]), &refused(), &refused()).run_id, None);
}

#[tokio::test]
async fn the_identity_of_a_real_server_is_read() {
    let server = RedisServer::start();
    let mut connection = server.connect().await;
    let master = Identity::query(&mut connection).await.unwrap();
    assert_eq!(master.refusal, None);
    assert!(master.run_id.is_some());
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec_async(&mut connection).await.unwrap();
    let replica = Identity::query(&mut connection).await.unwrap();
    assert_eq!((replica.refusal, &replica.run_id), (Some(Refusal::Replica), &master.run_id));
    assert_eq!(RoleQuery.send(&mut connection).await.unwrap().refusal, Some(Refusal::Replica));
    // The user has no permission for either command.
    redis::cmd("ACL")
        .arg("SETUSER")
        .arg("default")
        .arg("-role")
        .arg("-info")
        .exec_async(&mut connection)
        .await
        .unwrap();
    let replica = Identity::query(&mut connection).await.unwrap();
    assert_eq!((replica.refusal, replica.run_id), (Some(Refusal::Replica), None));
}
