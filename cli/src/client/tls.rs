//! TLS towards a server: which authorities are believed, and a stream that is encrypted or not.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// Whose word counts for who a server is; the web's usual authorities unless told otherwise.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// `None` for those of the web.
    authorities: Option<Arc<RootCertStore>>,
}

/// Why a file's authorities cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is no list of certificates.
    #[error("expected certificates in PEM")]
    NoCertificates,
}

/// A connection to a server: plain, or encrypted.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Trust {
    /// Believes the authorities of a PEM file, and no others.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn of_file(path: &Path) -> Result<Self, TrustError> {
        let text = std::fs::read(path)?;
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|_| TrustError::NoCertificates)?;
            authorities.add(certificate).map_err(|_| TrustError::NoCertificates)?;
        }
        if authorities.is_empty() {
            return Err(TrustError::NoCertificates);
        }
        Ok(Self { authorities: Some(Arc::new(authorities)) })
    }

    /// Shakes hands with the server that `host` names.
    pub(crate) async fn secure(&self, host: &str, stream: TcpStream) -> io::Result<Stream> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(Arc::new(self.config().map_err(io::Error::other)?));
        Ok(Either::Right(Box::new(connector.connect(name, stream).await?)))
    }

    fn config(&self) -> Result<ClientConfig, rustls::Error> {
        let authorities = match &self.authorities {
            Some(authorities) => authorities.clone(),
            None => Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authorities)
            .with_no_client_auth();
        // A proxy that also speaks HTTP/2 must not choose that.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}
