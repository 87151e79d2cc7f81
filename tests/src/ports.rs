//! Free ports, for servers that cannot be told to take any and say which.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::Rng;

/// Below what Linux gives to outgoing connections: a server that is away for a while finds its port free again.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port of the loopback interface that nobody listens on now. Whoever binds it must be ready to find it taken.
///
/// # Panics
/// When hundreds of ports in a row are taken.
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

/// A port of the loopback interface.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
