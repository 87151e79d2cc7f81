//! TLS of the public listener, configured by `[tls]`. Certificates can be replaced while the server runs.

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
use crate::sync::lock;
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
    #[error("expected a file, because {0} is set")]
    Missing(&'static str),
    /// The files cannot be used.
    #[error(transparent)]
    Pair(#[from] PairError),
}

impl TlsError {
    /// Returns the configuration key that is wrong.
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

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A TLS server whose certificate can be replaced.
pub struct Tls {
    config: Config,
    current: Arc<Current>,
    /// The digest of the files when they were last read, whether they could be used or not.
    seen: Mutex<Contents>,
    acceptor: TlsAcceptor,
}

/// The certificate of new handshakes.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

/// A digest of the certificate and key files, or of the errors when they are read.
///
/// Modification times are not enough. A mounted secret changes by a symbolic link to other files, which can have any
/// age.
type Contents = [u8; 32];

impl Tls {
    /// Creates the TLS server. Returns `None` if TLS is not configured.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        // rustls needs a default provider. A second call has no effect.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // The digest is taken before the files are used, so that a change in between is detected later.
        let seen = Mutex::new(contents(config));
        let Some(certificate) = load(config)? else { return Ok(None) };
        let current = Arc::new(Current(RwLock::new(Arc::new(certificate))));
        let mut server = ServerConfig::builder().with_no_client_auth().with_cert_resolver(current.clone());
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Some(Arc::new(Self { config: config.clone(), current, seen, acceptor })))
    }

    /// Reads the files again. Open connections keep their certificate. After an error, new connections use the old
    /// certificate.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self) -> Result<(), TlsError> {
        *lock(&self.seen) = contents(&self.config);
        if let Some(certificate) = load(&self.config)? {
            *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificate);
        }
        Ok(())
    }

    /// Reads the files again if their content has changed. Returns whether it has.
    ///
    /// # Errors
    /// [`TlsError`] if the new files cannot be used. Unchanged files do not cause the same error again.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let has_changed = *lock(&self.seen) != contents(&self.config);
        if has_changed {
            self.reload()?;
        }
        Ok(has_changed)
    }

    /// Performs the TLS handshake.
    ///
    /// # Errors
    /// If the handshake fails or takes too long.
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
