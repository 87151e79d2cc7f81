//! Streams with and without TLS.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use shared::serve::tls::trust::Trust;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// A connection to a server: plain, or encrypted.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Performs the TLS handshake. `host`: the name in the certificate of the server.
pub async fn secure(trust: &Trust, host: &str, stream: TcpStream) -> io::Result<Stream> {
    let name =
        ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut config = trust.client(None).map_err(io::Error::other)?;
    // Prevents HTTP/2 with a proxy that supports it.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    Ok(Either::Right(Box::new(connector.connect(name, stream).await?)))
}
