//! Connects to Redis.
//!
//! The `redis` crate connects over TCP and Unix sockets. TLS connections are made here, because the crate accepts
//! certificates but no verifier. See [`crate::serve::tls::trust`].

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::SockRef;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Config, ConfigError, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES, USER_TIMEOUT};
use crate::sync::lock;

/// The configured way to connect to a Redis server. Clones are cheap.
#[derive(Clone)]
pub struct Connector {
    client: Client,
    tls: Option<Arc<Tls>>,
    connect_timeout: Duration,
    command_timeout: Duration,
}

/// The TLS settings of a Redis server.
struct Tls {
    host: String,
    port: u16,
    name: ServerName<'static>,
    config: Config,
    /// The TLS configuration of the last connection.
    current: Mutex<Arc<ClientConfig>>,
}

impl Connector {
    pub(super) fn new(config: &Config, client: Client) -> Result<Self, ConfigError> {
        let tls = match client.get_connection_info().addr() {
            ConnectionAddr::TcpTls { host, port, .. } => Some(Arc::new(Tls {
                host: host.clone(),
                port: *port,
                name: ServerName::try_from(host.clone())
                    .map_err(|_| ConfigError::Url("expected a DNS name or an address as its host"))?,
                config: config.clone(),
                current: Mutex::new(config.tls()?),
            })),
            _ => None,
        };
        Ok(Self { client, tls, connect_timeout: config.connect_timeout, command_timeout: config.command_timeout })
    }

    /// Returns the address and the settings of connections.
    pub(crate) fn connection_info(&self) -> &ConnectionInfo {
        self.client.get_connection_info()
    }

    /// Returns the address of the server.
    pub fn address(&self) -> &ConnectionAddr {
        self.client.get_connection_info().addr()
    }

    /// Makes a connection. The configured timeouts replace those of `settings`.
    ///
    /// # Errors
    /// [`RedisError`] if the server is unreachable, its certificate is not trusted, or authentication fails.
    pub async fn connect(&self, settings: AsyncConnectionConfig) -> Result<MultiplexedConnection, RedisError> {
        let settings = settings
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.command_timeout));
        let Some(tls) = &self.tls else {
            return self.client.get_multiplexed_async_connection_with_config(&settings).await;
        };
        let connecting = async {
            let stream = tls.connect().await?;
            let info = self.client.get_connection_info().redis_settings();
            MultiplexedConnection::new_with_config(info, stream, settings).await
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the connection timed out");
        let (connection, driver) = timeout(self.connect_timeout, connecting).await.map_err(late)??;
        // The task ends when the last clone of the connection is dropped or the stream ends.
        tokio::spawn(driver);
        Ok(connection)
    }
}

impl Tls {
    async fn connect(self: &Arc<Self>) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let config = self.refresh().await;
        let addresses = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let attempts: Vec<_> = addresses.map(|address| Box::pin(TcpStream::connect(address))).collect();
        if attempts.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the host name of redis does not resolve"));
        }
        let (stream, _) = select_ok(attempts).await?;
        let keepalive = redis::io::tcp::socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        TlsConnector::from(config).connect(self.name.clone(), stream).await
    }

    /// Reloads the certificates, which may have been renewed. Uses the previous ones if this fails.
    async fn refresh(self: &Arc<Self>) -> Arc<ClientConfig> {
        if self.config.has_certificates() {
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.config.tls()).await {
                Ok(Ok(config)) => *lock(&self.current) = config,
                Ok(Err(error)) => {
                    let key = error.key();
                    tracing::warn!(
                        key,
                        %error,
                        "cannot reload the TLS certificates for redis; using the previous ones"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot reload the TLS certificates for redis; using the previous ones")
                }
            }
        }
        lock(&self.current).clone()
    }
}
