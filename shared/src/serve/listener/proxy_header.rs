//! Reads PROXY protocol headers, in which a load balancer states the address of the client.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// How long the header may take to arrive. A load balancer sends it at once.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The first bytes of a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The length in bytes of the fixed part of a header of version 2.
const HEAD: usize = 16;

/// The maximum length in bytes of a header of version 1, with its line break.
const LINE_MAX: usize = 107;

/// The maximum length in bytes of the variable part of a header of version 2. The addresses take at most 216 bytes.
/// Load balancers may add extensions.
const BLOCK_MAX: usize = 2048;

/// Reads exactly the header. Returns the address of the client, or `None` if the load balancer connects for itself.
///
/// # Errors
/// If no valid header arrives in time.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    timeout(TIMEOUT, read_now(stream)).await.map_err(|_| invalid("no PROXY header arrived in time"))?
}

async fn read_now(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_block(stream, header).await
    } else if header.starts_with(b"PROXY ") {
        read_line(stream, header).await
    } else {
        Err(invalid("expected a PROXY header"))
    }
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin), mut line: Vec<u8>) -> io::Result<Option<SocketAddr>> {
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_MAX {
            return Err(invalid("the PROXY header is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    let header = v1::Header::try_from(line.as_slice()).map_err(|_| invalid("the PROXY header cannot be read"))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Tcp6(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Unknown => None,
    })
}

async fn read_block(stream: &mut (impl AsyncRead + Unpin), mut block: Vec<u8>) -> io::Result<Option<SocketAddr>> {
    block.resize(HEAD, 0);
    stream.read_exact(&mut block[SIGNATURE.len()..]).await?;
    let length = usize::from(u16::from_be_bytes([block[HEAD - 2], block[HEAD - 1]]));
    if length > BLOCK_MAX {
        return Err(invalid("the PROXY header is too long"));
    }
    block.resize(HEAD + length, 0);
    stream.read_exact(&mut block[HEAD..]).await?;
    let header = v2::Header::try_from(block.as_slice()).map_err(|_| invalid("the PROXY header cannot be read"))?;
    Ok(match (header.command, header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(it)) => Some((it.source_address, it.source_port).into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(it)) => Some((it.source_address, it.source_port).into()),
        // A health check of the balancer, or a client without an address.
        _ => None,
    })
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_from(mut bytes: &[u8]) -> (Result<Option<String>, String>, Vec<u8>) {
        let read = read(&mut bytes).await;
        (read.map(|it| it.map(|it| it.to_string())).map_err(|error| error.to_string()), bytes.to_vec())
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[0x20 | command, family], &length, addresses].concat()
    }

    #[tokio::test]
    async fn both_versions_are_read_exactly() {
        let ipv4 = [1, 2, 3, 4, 5, 6, 7, 8, 0x12, 0x34, 0, 80];
        let mut ipv6 = [0; 36];
        ipv6[15] = 1;
        ipv6[32..].copy_from_slice(&[0, 7, 0, 80]);
        // An extension of the load balancer behind the addresses.
        let with_more = [ipv4.as_slice(), &[4, 0, 1, 0]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 4660 80\r\n".to_vec(), Some("1.2.3.4:4660")),
            (b"PROXY TCP6 2001:db8::1 ::1 7 80\r\n".to_vec(), Some("[2001:db8::1]:7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN what ever\r\n".to_vec(), None),
            (v2(1, 0x11, &ipv4), Some("1.2.3.4:4660")),
            (v2(1, 0x11, &with_more), Some("1.2.3.4:4660")),
            (v2(1, 0x21, &ipv6), Some("[::1]:7")),
            (v2(0, 0x00, &[]), None),
        ] {
            let bytes = [header.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
            let (read, rest) = read_from(&bytes).await;
            assert_eq!(read, Ok(expected.map(str::to_owned)), "{header:?}");
            assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        }
    }

    #[tokio::test]
    async fn invalid_headers_are_refused() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 99999 80\r\n".to_vec(),
            b"PROXY TCP4 x y 1 80\r\n".to_vec(),
            endless,
            b"PROXY".to_vec(),
            v2(1, 0x11, &[1, 2]),
            [SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff]].concat(),
            [SIGNATURE.as_slice(), &[0x91, 0x11, 0, 0]].concat(),
        ] {
            assert!(read_from(&bytes).await.0.is_err(), "{bytes:?}");
        }
    }
}
