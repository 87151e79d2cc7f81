use redis::{ErrorKind, Pipeline, Script, Value};

use super::*;
use crate::cluster::redis::server::RedisServer;

/// Returns the error of a reply.
fn error_of(answer: &'static str) -> RedisError {
    match redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap() {
        Value::ServerError(error) => error.into(),
        value => panic!("{value:?}"),
    }
}

#[test]
fn errors_about_the_server_and_about_a_key_are_classified() {
    for (answer, expected) in [
        ("READONLY You can't write against a read only replica.", Verdict::Refused(Refusal::Replica)),
        ("MASTERDOWN Link with MASTER is down", Verdict::Refused(Refusal::Replica)),
        ("MOVED 3999 127.0.0.1:6381", Verdict::Refused(Refusal::ClusterNode)),
        ("ASK 3999 127.0.0.1:6381", Verdict::Refused(Refusal::ClusterNode)),
        ("CLUSTERDOWN The cluster is down", Verdict::Refused(Refusal::ClusterNode)),
        ("NOREPLICAS Not enough good replicas to write.", Verdict::Refused(Refusal::NoReplicas)),
        ("OOM command not allowed when used memory > 'maxmemory'.", Verdict::Refused(Refusal::OutOfMemory)),
        ("MISCONF Redis is configured to save RDB snapshots", Verdict::Refused(Refusal::CannotPersist)),
        ("LOADING Redis is loading the dataset in memory", Verdict::Loading),
        ("NOPERM this user has no permissions to run the 'set' command", Verdict::Forbidden),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Verdict::Damaged),
        ("ERR hash value is not an integer", Verdict::Damaged),
        ("ERR value is not an integer or out of range", Verdict::Damaged),
        (
            "ERR user_script:7: attempt to perform arithmetic on a nil value script: ab, on @user_script:7.",
            Verdict::Damaged,
        ),
        ("ERR max number of clients reached", Verdict::Unavailable),
        ("ERR failover in progress", Verdict::Unavailable),
        ("ERR", Verdict::Unavailable),
        ("ERR Error running script (call to f_1): @user_script:1: Script killed by user", Verdict::Unavailable),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Verdict::Unavailable),
        ("BUSY Redis is busy running a script.", Verdict::Unavailable),
        ("NOAUTH Authentication required.", Verdict::Unavailable),
        ("SOMETHINGNEW that is unknown", Verdict::Unavailable),
    ] {
        let error = error_of(answer);
        assert_eq!(Verdict::of(&error), expected, "{answer}");
        assert_eq!(is_damage(&error), expected == Verdict::Damaged, "{answer}");
        let is_about_server = matches!(expected, Verdict::Refused(_) | Verdict::Loading);
        assert_eq!(LinkError::Command(error).is_command_error(), !is_about_server, "{answer}");
    }
}

#[test]
fn a_broken_connection_is_not_a_command_error() {
    let error = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    assert_eq!(Verdict::of(&error), Verdict::Lost);
    assert_eq!(Verdict::of(&RedisError::from((ErrorKind::UnexpectedReturnType, "not a number"))), Verdict::Damaged);
    assert!(LinkError::Command(error).ends_connection());
}

#[test]
fn refusals_have_different_labels() {
    let labels: std::collections::HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
    assert_eq!(labels.len(), Refusal::ALL.len());
}

#[tokio::test]
async fn errors_within_pipelines_transactions_and_scripts_are_found() {
    let server = RedisServer::start();
    let mut connection = server.connect().await;
    let run = async |command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        redis::cmd(words[0]).arg(&words[1..]).exec_async(&mut server.connect().await).await.unwrap();
    };
    run("SET text hello").await;
    run("HSET hash number hello").await;
    let script = Script::new("return redis.call('HINCRBY', KEYS[1], 'number', 1)");
    let arithmetic = Script::new("return tonumber(redis.call('GET', KEYS[1])) + 1");
    let mut pipeline = Pipeline::new();
    pipeline.cmd("SET").arg("a").arg("1").cmd("SADD").arg("text").arg("1");
    let mut transaction = Pipeline::new();
    transaction.atomic().cmd("SET").arg("a").arg("1").cmd("SADD").arg("text").arg("1");
    let damaged = [
        pipeline.exec_async(&mut connection).await.unwrap_err(),
        transaction.exec_async(&mut connection).await.unwrap_err(),
        script.key("text").invoke_async::<i64>(&mut connection).await.unwrap_err(),
        script.key("hash").invoke_async::<i64>(&mut connection).await.unwrap_err(),
        arithmetic.key("text").invoke_async::<i64>(&mut connection).await.unwrap_err(),
    ];
    for error in damaged {
        assert_eq!(Verdict::of(&error), Verdict::Damaged, "{error}");
    }
    run("CONFIG SET maxmemory 1").await;
    let full = [
        pipeline.exec_async(&mut connection).await.unwrap_err(),
        transaction.exec_async(&mut connection).await.unwrap_err(),
        script.key("free").invoke_async::<i64>(&mut connection).await.unwrap_err(),
    ];
    for error in full {
        assert_eq!(Verdict::of(&error), Verdict::Refused(Refusal::OutOfMemory), "{error}");
    }
    run("CONFIG SET maxmemory 0").await;
    run("REPLICAOF 127.0.0.1 1").await;
    let read_only = [
        pipeline.exec_async(&mut connection).await.unwrap_err(),
        transaction.exec_async(&mut connection).await.unwrap_err(),
        script.key("free").invoke_async::<i64>(&mut connection).await.unwrap_err(),
        redis::cmd("SET").arg("a").arg("1").query_async::<Value>(&mut connection).await.unwrap_err(),
    ];
    for error in read_only {
        assert_eq!(Verdict::of(&error), Verdict::Refused(Refusal::Replica), "{error}");
    }
}
