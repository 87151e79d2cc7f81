//! Tests against servers that send a few bytes.

use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::commands::doctor::finding::Verdict;

const UPGRADE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Returns the findings for a server that sends these bytes to each client and closes the connection.
async fn findings_of(sends: &[&[u8]]) -> Vec<Finding> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = ServerUrl::from(listener.local_addr().unwrap());
    let sends = sends.concat();
    let serving = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(&sends).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut head).await;
    });
    let findings = examine(&url, &AppKey::from("key"), Trust::default()).await;
    serving.await.unwrap();
    findings
}

fn text(text: &str) -> Vec<u8> {
    [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn close(code: u16, reason: &str) -> Vec<u8> {
    [&[0x88, u8::try_from(reason.len() + 2).unwrap()], &code.to_be_bytes()[..], reason.as_bytes()].concat()
}

async fn check(sends: &[&[u8]], words: &[&str]) {
    let findings = findings_of(sends).await;
    let [finding] = findings.as_slice() else { panic!("{} findings", findings.len()) };
    assert_eq!(finding.verdict, Verdict::Problem, "{}", finding.text);
    for word in words {
        assert!(finding.text.contains(word), "no {word:?} in {}", finding.text);
    }
}

#[tokio::test]
async fn only_an_established_connection_is_success() {
    let data = r#"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"#;
    let greeting = text(&format!(r#"{{"event":"pusher:connection_established","data":"{data}"}}"#));
    let findings = findings_of(&[UPGRADE, &greeting]).await;
    assert!(findings.iter().all(|finding| finding.verdict == Verdict::Good));
    assert!(findings[0].text.contains("establishes connections"), "{}", findings[0].text);
    check(&[UPGRADE, &text(r#"{"event":"hello","data":"{}"}"#)], &["does not establish a connection"]).await;
    check(&[UPGRADE], &["refuses the client", "without a close frame"]).await;
}

#[tokio::test]
async fn refusals_after_the_upgrade_are_reported_with_code_reason_and_advice() {
    let error = text(r#"{"event":"pusher:error","data":{"code":4001,"message":"App key key not in this cluster"}}"#);
    check(&[UPGRADE, &error], &["4001", "not in this cluster", "no app with this key"]).await;
    check(&[UPGRADE, &close(4100, "Over capacity")], &["4100", "Over capacity", "full"]).await;
    check(&[UPGRADE, &close(4009, "")], &["4009", "server.allow"]).await;
    check(&[UPGRADE, &close(4200, "")], &["4200", "shuts down"]).await;
}

#[tokio::test]
async fn other_responses_are_reported_with_their_cause() {
    let answer = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    check(&[&answer("426 Upgrade Required")], &["the proxy must forward the headers Upgrade"]).await;
    check(&[&answer("404 Not Found")], &["404", "check that it forwards to this server"]).await;
    check(&[b"SSH-2.0-x\r\n"], &["cannot be reached"]).await;
}

#[test]
fn a_wrong_clock_is_reported() {
    let now = SystemTime::now();
    let ago = |seconds| now - Duration::from_secs(seconds);
    for (date, verdict) in [
        (now, Verdict::Good),
        (ago(60), Verdict::Warning),
        (now + Duration::from_secs(60), Verdict::Warning),
        (ago(900), Verdict::Problem),
    ] {
        let finding = clock(Some(&httpdate::fmt_http_date(date)));
        assert_eq!(finding.verdict, verdict, "{}", finding.text);
    }
    assert!(clock(None).text.contains("not compared"));
    assert!(clock(Some("yesterday")).text.contains("not compared"));
}
