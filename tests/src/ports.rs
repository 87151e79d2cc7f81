//! Free ports, for servers that cannot choose and print a port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::Rng;

/// The range below the ports that Linux uses for outgoing connections. A stopped server finds its port free again.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// Returns a port of the loopback interface on which no process listens. Binding it can still fail.
///
/// # Panics
/// Panics if hundreds of ports in a row are in use.
pub fn free() -> u16 {
    let mut rng = rand::rng();
    for _ in 0..500 {
        let port = rng.random_range(RANGE);
        if TcpListener::bind(local(port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}

/// Returns a port of the loopback interface.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
