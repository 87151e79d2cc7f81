use super::*;
use crate::cluster::redis::server::RedisCluster;

/// Returns names of enough sessions for two commands to Redis.
fn sessions() -> Vec<String> {
    (0..250).map(|number| format!("session-{number}")).collect()
}

async fn a_session_has_the_node_that_claimed_it_first(directory: impl Directory) {
    let sessions = sessions();
    assert_eq!(directory.holder(&sessions[0]).await.unwrap(), None);
    assert_eq!(directory.claim("ana", &sessions[..1], None).await.unwrap(), ["ana"]);
    let holders = directory.claim("bo", &sessions, None).await.unwrap();
    assert_eq!((holders[0].as_str(), holders.len()), ("ana", sessions.len()));
    assert!(holders[1..].iter().all(|holder| holder == "bo"));
    assert_eq!(directory.claim("ana", &sessions[..2], None).await.unwrap(), ["ana", "bo"]);
    assert_eq!(directory.holder(&sessions[1]).await.unwrap().as_deref(), Some("bo"));
}

async fn a_claim_replaces_the_entry_of_a_former_node(directory: impl Directory) {
    let session = &sessions()[..1];
    directory.claim("ana", session, None).await.unwrap();
    assert_eq!(directory.claim("bo", session, Some("cleo")).await.unwrap(), ["ana"]);
    assert_eq!(directory.claim("bo", session, Some("ana")).await.unwrap(), ["bo"]);
    assert_eq!(directory.holder(&session[0]).await.unwrap().as_deref(), Some("bo"));
}

async fn only_the_node_that_has_a_session_releases_it(directory: impl Directory) {
    let session = &sessions()[..1];
    directory.claim("ana", session, None).await.unwrap();
    directory.release("bo", &session[0]).await.unwrap();
    assert_eq!(directory.holder(&session[0]).await.unwrap().as_deref(), Some("ana"));
    directory.release("ana", &session[0]).await.unwrap();
    assert_eq!(directory.holder(&session[0]).await.unwrap(), None);
    directory.release("ana", &session[0]).await.unwrap();
}

/// Defines a test of each function for both implementations.
macro_rules! directory_contract {
    ($($test:ident)*) => {
        mod in_memory {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(super::MemoryDirectory::default()).await;
                }
            )*
        }
        mod in_redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let cluster = super::RedisCluster::new().await;
                    super::$test(super::RedisDirectory::new(cluster.link())).await;
                }
            )*
        }
    };
}

directory_contract! {
    a_session_has_the_node_that_claimed_it_first
    a_claim_replaces_the_entry_of_a_former_node
    only_the_node_that_has_a_session_releases_it
}
