//! `[tls]`: TLS without a proxy in front, with certificates that can be changed while the server runs.

pub mod files;
pub mod trust;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Mistake, Validate, schema};
use files::PairError;

/// The certificate of the public listener. Both settings are required for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A PEM file with the certificate, followed by the intermediate certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub cert: Option<PathBuf>,
    /// A PEM file with the private key of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub key: Option<PathBuf>,
}

/// An error that prevents TLS from being served as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of the two keys is set and the other is not.
    #[error("expected a file, since {0} is set")]
    Missing(&'static str),
    /// The files cannot be used.
    #[error(transparent)]
    Pair(#[from] PairError),
}

impl TlsError {
    /// The configuration key that is wrong.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Missing("tls.cert") | Self::Pair(PairError::Key(_) | PairError::Mismatch { .. }) => "tls.key",
            Self::Missing(_) | Self::Pair(PairError::Certificate(_) | PairError::Order { .. }) => "tls.cert",
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<Mistake> {
        Tls::new(self).err().map(|error| Mistake::new(error.key(), error.to_string())).into_iter().collect()
    }
}

/// A handshake takes a few round trips; a client that is slower than this is none.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves TLS with the certificate of now.
pub struct Tls {
    config: Config,
    current: Arc<Current>,
    /// What was in the files when they were last read, whether it could be used or not.
    seen: Mutex<Contents>,
    acceptor: TlsAcceptor,
}

/// What new handshakes are answered with.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

/// A digest of what certificate and key hold, or of why they cannot be read. Times would not do: a mounted secret changes by
/// a link that leads elsewhere, to files of any age.
type Contents = [u8; 32];

impl Tls {
    /// TLS as configured; `None` when it is not.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        // It needs to be told whose cryptography it uses, once; to be told again does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Before the files are used: what changes in between is a change.
        let seen = Mutex::new(contents(config));
        let Some(certificate) = load(config)? else { return Ok(None) };
        let current = Arc::new(Current(RwLock::new(Arc::new(certificate))));
        let mut server = ServerConfig::builder().with_no_client_auth().with_cert_resolver(current.clone());
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Some(Arc::new(Self { config: config.clone(), current, seen, acceptor })))
    }

    /// Reads the files again. Connections keep what they have; on an error so do new ones.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self) -> Result<(), TlsError> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = contents(&self.config);
        if let Some(certificate) = load(&self.config)? {
            *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificate);
        }
        Ok(())
    }

    /// Reads the files again if they hold something else than the last time; whether they did. Files that cannot be used are
    /// an error once, and not again before they change.
    ///
    /// # Errors
    /// [`TlsError`], as of [`Tls::reload`].
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let has_changed = *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != contents(&self.config);
        if has_changed {
            self.reload()?;
        }
        Ok(has_changed)
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When the client speaks no TLS that is spoken here, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let handshake = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream));
        handshake.await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"))?
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn load(config: &Config) -> Result<Option<CertifiedKey>, TlsError> {
    let (cert, key) = match (&config.cert, &config.key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => return Err(TlsError::Missing("tls.cert")),
        (None, Some(_)) => return Err(TlsError::Missing("tls.key")),
    };
    Ok(Some(files::server_key(cert, key)?))
}

fn contents(config: &Config) -> Contents {
    let mut digest = Sha256::new();
    for path in [&config.cert, &config.key].into_iter().flatten() {
        let content = fs::read(path).unwrap_or_else(|error| error.to_string().into_bytes());
        digest.update(content.len().to_be_bytes());
        digest.update(content);
    }
    digest.finalize().into()
}
