//! `[tls]`: TLS without a proxy in front, with certificates that can be changed while the server runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// `[tls]`: both or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// PEM file with the certificate, followed by those that lead to its authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// PEM file with its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Why TLS cannot be served as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of two.
    #[error("expected a file, since {0} is given")]
    Missing(&'static str),
    /// A file cannot be read, or holds something else.
    #[error("cannot use {path}: {complaint}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        complaint: String,
    },
    /// The two do not belong together, or the key is of a kind that nobody has.
    #[error("the certificate and the key cannot be used: {0}")]
    Pair(#[from] rustls::Error),
}

impl TlsError {
    /// The key that is wrong.
    pub fn key(&self, config: &Config) -> &'static str {
        match self {
            Self::Missing("tls.cert") => "tls.key",
            Self::File { path, .. } if config.key.as_ref() == Some(path) => "tls.key",
            _ => "tls.cert",
        }
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
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&read(cert)?).collect::<Result<_, _>>().map_err(|error| file(cert, &error))?;
    if certificates.is_empty() {
        return Err(file(cert, &"there is no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| file(key, &error))?;
    let provider = rustls::crypto::ring::default_provider();
    Ok(Some(CertifiedKey::from_der(certificates, private, &provider)?))
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

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| file(path, &error))
}

fn file(path: &Path, complaint: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), complaint: complaint.to_string() }
}
