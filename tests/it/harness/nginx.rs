//! The nginx in front of clusters, with servers that return their name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tests::{Nginx, Raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server that responds to every request with its name and the head of the request.
async fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((HOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let body = format!("{name} {}", String::from_utf8_lossy(&head));
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                // The client can have closed the connection.
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

async fn ask(nginx: &Nginx, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: example:8080\r\nConnection: close\r\n{headers}\r\n");
    Raw::connect(nginx.address).await.exchange(request.as_bytes()).await.body
}

#[tokio::test]
async fn sockets_go_to_gateways_and_the_api_to_publishers() {
    let (gateways, publishers) = ([server("g0").await, server("g1").await], [server("p0").await]);
    let nginx = Nginx::start(HOST, 0, &gateways, &publishers).await;
    for path in ["/apps/1/events?a=b%20c", "/users/1/terminate_connections"] {
        let answer = ask(&nginx, path, "").await;
        assert!(answer.starts_with(&format!("p0 GET {path} HTTP/1.1\r\n")), "{answer}");
        assert!(
            answer.contains("Host: example:8080\r\n"),
            "signatures are over the path, links over the host: {answer}"
        );
    }
    let mut seen = Vec::new();
    for path in ["/app/key?protocol=7", "/up", "/pusher/app/key", "/app/key"] {
        let answer = ask(&nginx, path, "").await;
        assert!(answer.contains(&format!(" GET {path} HTTP/1.1\r\n")), "{answer}");
        seen.push(answer[..2].to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["g0", "g0", "g1", "g1"], "requests are split between both gateways");
    nginx.stop().await;
}

#[tokio::test]
async fn an_upgrade_is_forwarded() {
    let gateway = server("g0").await;
    let nginx = Nginx::start(HOST, 0, &[gateway], &[gateway]).await;
    let mut raw = Raw::connect(nginx.address).await;
    let upgrade = "GET /app/key HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = raw.exchange(upgrade.as_bytes()).await.body;
    assert!(answer.contains("Upgrade: websocket\r\n") && answer.contains("Connection: upgrade\r\n"), "{answer}");
    assert_eq!(nginx.log(), "");
    nginx.stop().await;
}

#[tokio::test]
async fn an_unavailable_gateway_is_skipped() {
    let gone = tests::ports::local(tests::ports::free());
    let there = server("g1").await;
    let nginx = Nginx::start(HOST, 0, &[gone, there], &[there]).await;
    for _ in 0..4 {
        assert!(ask(&nginx, "/app/key", "").await.starts_with("g1 "));
    }
    nginx.stop().await;
}
