//! Tests the client against minimal servers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use std::time::Duration;

use shared::app::App;

use super::*;

const ESTABLISHED: &str =
    r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}"#;

/// Accepts one WebSocket and sends `pieces` one by one. Returns everything that the client sends until it closes.
fn server(pieces: Vec<Vec<u8>>) -> (ServerUrl, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = ServerUrl::from(listener.local_addr().unwrap());
    let listener = TcpListener::from_std(listener).unwrap();
    let serving = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        head(&mut stream).await;
        let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(upgrade.as_bytes()).await.unwrap();
        for piece in pieces {
            stream.write_all(&piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut sent = Vec::new();
        let _ = stream.read_to_end(&mut sent).await;
        sent
    });
    (url, serving)
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Encodes a frame without a mask, like a server. `first`: the byte with FIN and the opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = vec![first];
    match u8::try_from(length) {
        Ok(length) if length < 126 => frame.push(length),
        _ => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

fn text(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

async fn connected(pieces: Vec<Vec<u8>>) -> Client {
    let (url, _) = server(pieces);
    Client::connect(&url, "key", &Options::default()).await.unwrap()
}

#[tokio::test]
async fn a_message_can_arrive_byte_by_byte_and_in_fragments_around_a_ping() {
    let mut bytes = text(ESTABLISHED);
    bytes.extend(frame(0x01, br#"{"event":"e","channel":"c","#));
    bytes.extend(frame(0x89, b"are you there"));
    bytes.extend(frame(0x80, br#""data":"{\"a\":1}"}"#));
    let mut client = connected(bytes.chunks(1).map(<[u8]>::to_vec).collect()).await;
    assert_eq!(client.socket_id().to_string(), "1.2");
    assert_eq!(client.activity_timeout(), Duration::from_secs(120));
    let message = client.next_message().await.unwrap();
    assert_eq!(
        (message.event.as_str(), message.channel.as_deref(), message.data.as_str()),
        ("e", Some("c"), r#"{"a":1}"#)
    );
}

#[tokio::test]
async fn dropping_a_receive_future_loses_no_data() {
    let event = text(r#"{"event":"e","channel":"c","data":"x"}"#);
    let (first, second) = event.split_at(9);
    let (url, serving) = server(vec![text(ESTABLISHED), first.to_vec()]);
    let mut client = Client::connect(&url, "key", &Options::default()).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(20), client.next_message()).await;
    assert!(waited.is_err());
    drop(client);
    serving.await.unwrap();

    let mut pieces = vec![text(ESTABLISHED)];
    pieces.extend([first.to_vec(), second.to_vec()]);
    let mut client = connected(pieces).await;
    let message = loop {
        // Polled once and then dropped: the part of the frame that was read must not be lost.
        tokio::select! {
            biased;
            message = client.next_message() => break message.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    };
    assert_eq!(message.data, "x");
}

#[tokio::test]
async fn a_protocol_ping_is_answered_and_not_returned() {
    let pieces =
        vec![text(ESTABLISHED), text(r#"{"event":"pusher:ping","data":{}}"#), frame(0x88, &1000u16.to_be_bytes())];
    let (url, serving) = server(pieces);
    let mut client = Client::connect(&url, "key", &Options::default()).await.unwrap();
    assert!(matches!(client.next_message().await, Err(ClientError::Closed { code: Some(1000), .. })));
    drop(client);
    let sent = serving.await.unwrap();
    let pong = r#"{"event":"pusher:pong","data":{}}"#;
    // A text frame with FIN: the masked length, the mask and the masked payload.
    assert_eq!((sent[0], usize::from(sent[1])), (0x81, 0x80 | pong.len()));
    let unmasked: Vec<u8> = sent[6..].iter().zip(sent[2..6].iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    assert_eq!(&unmasked[..pong.len()], pong.as_bytes());
}

#[tokio::test]
async fn a_refused_connection_has_the_code_and_text_of_the_server() {
    let refusal = r#"{"event":"pusher:error","data":{"code":4001,"message":"App key x not in this cluster"}}"#;
    let (url, _) = server(vec![text(refusal)]);
    let error = Client::connect(&url, "x", &Options::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the server refused: App key x not in this cluster (4001)");
}

#[tokio::test]
async fn messages_before_a_reply_are_kept_in_order() {
    let answer = r#"{"event":"pusher_internal:subscription_succeeded","channel":"b","data":"{}"}"#;
    let early = ["1", "2"].map(|data| text(&format!(r#"{{"event":"e","channel":"a","data":"{data}"}}"#)));
    let [first, second] = early;
    let mut client = connected(vec![text(ESTABLISHED), first, second, text(answer)]).await;
    assert_eq!(client.subscribe("b").await.unwrap().data, "{}");
    assert_eq!(client.next_message().await.unwrap().data, "1");
    assert_eq!(client.next_message().await.unwrap().data, "2");
}

#[tokio::test]
async fn a_refused_subscription_is_an_error() {
    let refusal = r#"{"event":"pusher:subscription_error","channel":"private-a","data":"{\"type\":\"AuthError\",\"error\":\"no\",\"status\":401}"}"#;
    let mut client = connected(vec![text(ESTABLISHED), text(refusal)]).await;
    let app = App::with_defaults("1", "k", "s");
    let error = client.subscribe_signed(&app, "private-a", None).await.unwrap_err();
    assert_eq!(error.to_string(), "the server refused: no (401)");
}

#[tokio::test]
async fn the_error_has_the_code_of_the_close_frame() {
    let close = [&4200u16.to_be_bytes()[..], b"leaving"].concat();
    let mut client = connected(vec![text(ESTABLISHED), frame(0x88, &close)]).await;
    let error = client.next_message().await.unwrap_err();
    assert_eq!(error.to_string(), "the server closed the connection: leaving (4200)");
}

#[tokio::test]
async fn invalid_frames_of_a_server_are_errors() {
    let too_long = [&[0x81, 127][..], &u64::MAX.to_be_bytes()[..]].concat();
    for (bytes, expected) in [
        (vec![0x81, 0x80, 0, 0, 0, 0], "masked"),
        (vec![0xf1, 0], "reserved bits"),
        (frame(0x80, b"x"), "continuation frame without a message"),
        (frame(0x81, b"\xff"), "not UTF-8"),
        (frame(0x81, b"{"), "EOF while parsing"),
        (too_long, "larger than"),
    ] {
        let mut client = connected(vec![text(ESTABLISHED), bytes]).await;
        let error = client.next_message().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn the_error_has_the_response_if_it_is_not_a_websocket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = ServerUrl::from(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope\n").await.unwrap();
    });
    let error = Client::connect(&url, "key", &Options::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the server responded with 404 Not Found instead of opening a WebSocket: nope");
}

#[tokio::test]
async fn an_api_client_signs_requests_and_reconnects_after_the_connection_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = App::with_defaults("1", "k", "s");
    let expected = app.clone();
    let serving = tokio::spawn(async move {
        let mut connections = 0;
        for requests in [2, 1] {
            let mut stream = listener.accept().await.unwrap().0;
            connections += 1;
            for _ in 0..requests {
                let head = head(&mut stream).await;
                let (path, query) = head.split(' ').nth(1).unwrap().split_once('?').unwrap();
                assert_eq!(path, "/ws/apps/1/channels");
                let query = shared::auth::SignedQuery::parse(query);
                query.verify_head(&expected, "GET", path, unix_s()).unwrap();
                query.verify_body(b"").unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
            }
        }
        connections
    });
    let mut api = ApiClient::new(ServerUrl::new("127.0.0.1", address.port(), "/ws"), app);
    for _ in 0..3 {
        let reply = api.get("/channels", &[("info", "user_count"), ("filter_by_prefix", "a b")]).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "{}"));
        // Gives the connection task time to see that the server closed the connection.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(serving.await.unwrap(), 2);
}

fn unix_s() -> u64 {
    shared::cluster::envelope::unix_us() / 1_000_000
}

#[test]
fn valid_urls_are_parsed() {
    for (text, host, port, prefix, authority) in [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, "", "127.0.0.1:8080"),
        ("ws://example.com", "example.com", 80, "", "example.com:80"),
        ("http://[::1]:9/ws/", "::1", 9, "/ws", "[::1]:9"),
        ("https://example.com", "example.com", 443, "", "example.com:443"),
        ("wss://example.com:8443/ws", "example.com", 8443, "/ws", "example.com:8443"),
    ] {
        let url: ServerUrl = text.parse().unwrap();
        assert_eq!((url.host(), url.port(), url.prefix(), url.authority().as_str()), (host, port, prefix, authority));
        assert_eq!(url.is_tls(), text.starts_with("https") || text.starts_with("wss"));
        assert_eq!(url.to_string().parse(), Ok(url), "{text}");
    }
}

#[test]
fn invalid_urls_have_an_explanation() {
    let error = |text: &str| text.parse::<ServerUrl>().unwrap_err().to_string();
    assert_eq!(error("ftp://a"), "expected http://, https://, ws:// or wss://, not ftp://");
    for text in ["", "a b", "localhost", "/path"] {
        assert_eq!(error(text), "expected a URL like http://127.0.0.1:8080", "{text:?}");
    }
}
