//! The connection of a node to other nodes: its address, its listener for them, and the directory of fallback sessions.
//!
//! The listener is a separate one, because the public listener may require TLS, a PROXY header or certain networks.
//! Requests to it are signed with the app's secret.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::cluster::directory::Directory;
use shared::serve::listener::BoundListener;
use shared::serve::network::Access;
use tokio::sync::OnceCell;

use super::name::SessionName;
use crate::config;

/// The address of this node in the cluster, its listener for other nodes, and the directory of fallback sessions.
pub(crate) struct Peers {
    directory: Arc<dyn Directory>,
    pub(super) listener: BoundListener,
    /// The networks whose requests are accepted.
    pub(super) access: Access,
    /// The configured address at which other nodes reach this one.
    advertise: Option<String>,
    /// A random id. It distinguishes this node from others with the same address.
    id: String,
    /// The name of this node in the directory, `id@host:port`, once it is known.
    address: OnceCell<String>,
    runtime: tokio::runtime::Handle,
    /// Whether another node has rejected a request. The warning about it is logged once.
    has_been_refused: AtomicBool,
}

impl Peers {
    /// Binds the listener for other nodes. `inherited`: the socket that the process was started with.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub(crate) async fn bind(
        config: &config::Peers,
        directory: Arc<dyn Directory>,
        inherited: Option<std::net::TcpListener>,
    ) -> io::Result<Self> {
        let listener = shared::serve::listener::listen(&config.host, config.port, inherited).await?;
        let advertise = (!config.advertise.is_empty()).then(|| config.advertise.clone());
        let runtime = tokio::runtime::Handle::current();
        let has_been_refused = AtomicBool::new(false);
        let access = Access { allow: config.allow.clone(), deny: config.deny.clone(), ..Access::default() };
        let id = format!("{:016x}", rand::random::<u64>());
        Ok(Self { id, directory, listener, access, advertise, address: OnceCell::new(), runtime, has_been_refused })
    }

    /// Returns the address of the listener.
    pub(crate) fn bound(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns the name of this node in the directory, or `None` while its address cannot be determined.
    pub(super) async fn address(&self) -> Option<&str> {
        let found = self.address.get_or_try_init(|| async {
            if let Some(advertise) = &self.advertise {
                return Ok(format!("{}@{advertise}", self.id));
            }
            let mut address = self.listener.local_addr()?;
            if address.ip().is_unspecified() {
                address.set_ip(self.directory.local_address().await?);
            }
            if address.ip().is_loopback() {
                let advice = "set peers.advertise if gateways run on other machines";
                tracing::info!(%address, advice, "only gateways on this machine can reach this gateway");
            }
            Ok::<_, io::Error>(format!("{}@{address}", self.id))
        });
        match found.await {
            Ok(address) => Some(address),
            Err(error) => {
                tracing::debug!(%error, "cannot determine the address of this node");
                None
            }
        }
    }

    /// Returns the other node that has a session, if there is one.
    pub(super) async fn holder(&self, name: &SessionName) -> Option<String> {
        let own = self.address().await?;
        let holder = self.directory.holder(name.as_str()).await.ok()??;
        (holder != own).then_some(holder)
    }

    /// Registers this node, `own`, as the holder of a session that no node has. Returns the holder, or `None` if Redis
    /// does not answer; the session then counts as new.
    ///
    /// `former`: a node that the directory may name although it no longer has the session.
    pub(super) async fn claim(&self, own: &str, name: &SessionName, former: Option<&str>) -> Option<String> {
        match self.directory.claim(own, &[name.as_str().to_owned()], former).await {
            Ok(holders) => holders.into_iter().next(),
            Err(error) => {
                tracing::debug!(%error, "cannot look up a fallback session; treating it as new");
                None
            }
        }
    }

    /// Renews the entries of these sessions in the directory.
    pub(super) async fn renew(&self, names: &[String]) {
        let Some(address) = self.address().await else {
            tracing::warn!(
                "cannot determine the address of this node; set peers.advertise so that other nodes reach it"
            );
            return;
        };
        if let Err(error) = self.directory.claim(address, names, None).await {
            tracing::debug!(%error, "cannot renew fallback sessions in the directory; retrying");
        }
    }

    /// Removes a session from the directory, in the background.
    pub(super) fn release(&self, name: SessionName) {
        let (directory, address) = (self.directory.clone(), self.address.get().cloned());
        // If this fails, the entry expires, or the next request of the session corrects it.
        self.runtime.spawn(async move {
            if let Some(address) = address {
                let _ = directory.release(&address, name.as_str()).await;
            }
        });
    }

    /// Logs once that another node rejected a request.
    pub(super) fn warn_refused(&self, holder: &str) {
        if !self.has_been_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(holder, "peer rejected a forwarded request; check that app secrets match and clocks agree");
        }
    }
}
