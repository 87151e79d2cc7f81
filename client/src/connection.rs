//! Connections to a server, for WebSockets and for HTTP requests.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Incoming;
use shared::serve::tls::trust::Trust;
use tokio::net::TcpStream;

use crate::error::ClientError;
use crate::tls::{self, Stream};
use crate::url::ServerUrl;

/// The timeout for connecting, including handshakes.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest response body: a list of 100,000 channels with long names and counts.
const RESPONSE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Connects to a server, and performs the TLS handshake if the URL requires TLS.
pub(crate) async fn connect(url: &ServerUrl, trust: &Trust) -> Result<Stream, ClientError> {
    let address = || url.authority();
    let connecting = async {
        let stream = TcpStream::connect((url.host(), url.port())).await;
        let stream = stream.map_err(|source| ClientError::Connect { address: address(), source })?;
        stream.set_nodelay(true)?;
        if !url.is_tls() {
            return Ok(Stream::Left(stream));
        }
        tls::secure(trust, url.host(), stream).await.map_err(|source| ClientError::Tls { address: address(), source })
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| ClientError::Timeout(CONNECT_TIMEOUT))?
}

/// Reads the whole body of a response. Replaces invalid UTF-8.
pub(crate) async fn text_of(response: Response<Incoming>) -> Result<String, ClientError> {
    let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| ClientError::Protocol(format!("its response cannot be read: {error}")))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
