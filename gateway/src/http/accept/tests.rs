use std::time::Duration;

use shared::app::Apps;
use shared::cluster::bus::MemoryBus;
use shared::cluster::roster::MemoryRoster;
use shared::serve::descriptors::{RESERVED, sockets_max};
use shared::serve::listener::{AcceptPolicy, Inherited};
use shared::serve::telemetry::metrics::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Config, Server};
use crate::{Deps, Gateway};

/// The timeout of each step.
const DEADLINE: Duration = Duration::from_secs(10);

/// Returns the first byte of the response, or `None` if the server closes the connection.
async fn first_byte(stream: &mut TcpStream, request: &[u8]) -> Option<u8> {
    // If the connection has been dropped, the write may fail.
    let _ = stream.write_all(request).await;
    timeout(DEADLINE, stream.read_u8()).await.expect("a response or the end of the connection").ok()
}

#[tokio::test]
async fn a_connection_beyond_the_descriptor_limit_is_dropped_until_another_one_closes() {
    let app = serde_json::from_str(r#"{"id":"app","key":"key","secret":"secret"}"#).unwrap();
    let (bus, registry) = (MemoryBus::new(), Registry::new());
    // Four for each of two shards and two for clients.
    let descriptors_max = RESERVED + 10;
    let deps = Deps {
        sockets: Inherited::default(),
        apps: Apps::new([app]).unwrap(),
        bus: bus.clone(),
        roster: MemoryRoster::new(bus),
        routes: None,
        directory: None,
        accept_policy: AcceptPolicy::default(),
        registry: registry.clone(),
        descriptors_max,
    };
    let server = Server { host: "127.0.0.1".into(), port: 0, shards: 2, ..Server::default() };
    let gateway = Gateway::bind(Config { server, ..Config::default() }, deps).await.unwrap();
    assert_eq!(gateway.connections_max(), 2);
    let (address, listener) = (gateway.address(), gateway.envelope_sink());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    drop(listener);

    let clients = async move {
        let mut idle = Vec::new();
        for _ in 0..sockets_max(descriptors_max, 2, false) {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // An incomplete request keeps the connection open.
            stream.write_all(b"GET /up HTTP/1.1\r\n").await.unwrap();
            idle.push(stream);
        }
        let request = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut refused = TcpStream::connect(address).await.unwrap();
        assert_eq!(first_byte(&mut refused, request).await, None);
        let dropped = || {
            let families = registry.gather();
            let family = families.iter().find(|family| family.name() == "carillon_connections_dropped_total").unwrap();
            family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum::<f64>()
        };
        assert_eq!(dropped(), 1.0);
        idle.pop();
        let served = async {
            while first_byte(&mut TcpStream::connect(address).await.unwrap(), request).await != Some(b'H') {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, served).await.expect("a connection is served after another one closed");
        drop(idle);
        stop.send(()).unwrap();
    };
    let (ran, ()) = timeout(6 * DEADLINE, futures_util::future::join(gateway.run(shutdown), clients))
        .await
        .expect("the gateway shuts down");
    ran.unwrap();
}
