//! A TLS tunnel for clients without TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// A tunnel that forwards plain connections over TLS. The server's certificate must be for `localhost`.
pub struct Tunnel {
    /// The address on which it listens.
    pub address: SocketAddr,
    /// The certificate of the server in the last handshake.
    certificate: Arc<Mutex<Option<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Starts a tunnel to `server`. `authority` is the file of the trusted authority.
    ///
    /// # Panics
    /// Panics if the file has no certificate.
    pub async fn start(server: SocketAddr, authority: &Path) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).expect("a certificate")).expect("a good one");
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let certificate: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
        let seen = certificate.clone();
        let task = tokio::spawn(async move {
            while let Ok((plain, _)) = listener.accept().await {
                tokio::spawn(forward(plain, server, connector.clone(), seen.clone()));
            }
        });
        Self { address, certificate, task }
    }

    /// Returns the certificate of the server in the last handshake.
    ///
    /// # Panics
    /// Panics if there was none.
    pub fn certificate(&self) -> Vec<u8> {
        self.certificate.lock().expect("the lock is not poisoned").clone().expect("a handshake")
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut plain: TcpStream, server: SocketAddr, connector: TlsConnector, seen: Arc<Mutex<Option<Vec<u8>>>>) {
    let Ok(stream) = TcpStream::connect(server).await else { return };
    let name = ServerName::try_from("localhost").expect("a name");
    // The plain connection ends if a handshake fails.
    let Ok(mut encrypted) = connector.connect(name, stream).await else { return };
    let leaf = encrypted.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
    *seen.lock().expect("the lock is not poisoned") = leaf;
    let _ = tokio::io::copy_bidirectional(&mut plain, &mut encrypted).await;
}
