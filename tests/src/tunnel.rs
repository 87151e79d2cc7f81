//! A way through TLS for clients that speak none.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Takes plain connections and passes each on, encrypted, to a server that must be `localhost` by its certificate.
pub struct Tunnel {
    /// Where it listens.
    pub address: SocketAddr,
    /// The server's certificate in the last handshake.
    certificate: Arc<Mutex<Option<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Starts one to `server`. `authority`: the file of whom it believes.
    ///
    /// # Panics
    /// When the file holds no certificate.
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
                tokio::spawn(pass_on(plain, server, connector.clone(), seen.clone()));
            }
        });
        Self { address, certificate, task }
    }

    /// The server's certificate in the last handshake.
    ///
    /// # Panics
    /// When there was none.
    pub fn certificate(&self) -> Vec<u8> {
        self.certificate.lock().expect("nobody panics with it").clone().expect("a handshake")
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(mut plain: TcpStream, server: SocketAddr, connector: TlsConnector, seen: Arc<Mutex<Option<Vec<u8>>>>) {
    let Ok(stream) = TcpStream::connect(server).await else { return };
    let name = ServerName::try_from("localhost").expect("a name");
    // A handshake that fails shows as the end of the plain connection.
    let Ok(mut encrypted) = connector.connect(name, stream).await else { return };
    let leaf = encrypted.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
    *seen.lock().expect("nobody panics with it") = leaf;
    let _ = tokio::io::copy_bidirectional(&mut plain, &mut encrypted).await;
}
