//! The WebSocket node: holds the connections, hears the bus, fans out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use prometheus::Registry;
use shared::admin::Health;
use shared::app::Apps;
use shared::bus::{Bus, Listener};
use shared::http::Routes;
use shared::roster::Roster;

pub mod config;

pub use config::Config;

/// What a gateway works with.
pub struct Deps {
    /// The tenants.
    pub apps: Apps,
    /// Carries events; [`Gateway::listener`] must be made its listener before [`Gateway::run`].
    pub bus: Arc<dyn Bus>,
    /// Knows members, occupancy and last events.
    pub roster: Arc<dyn Roster>,
    /// Answers HTTP requests that are no WebSockets; without it they get 404.
    pub routes: Option<Arc<dyn Routes>>,
    /// Where metrics are registered.
    pub registry: Registry,
    /// Open descriptors that this process may have; the ceiling of connections follows from it.
    pub descriptors_max: u64,
}

/// A bound gateway.
pub struct Gateway {}

impl Gateway {
    /// Binds the public listener.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(config: Config, deps: Deps) -> io::Result<Self> {
        let _ = (config, deps);
        Ok(Self {})
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    /// Most WebSockets that this node will hold.
    pub fn connections_max(&self) -> usize {
        0
    }

    /// What the bus delivers to.
    pub fn listener(&self) -> Arc<dyn Listener> {
        unreachable!()
    }

    /// What the admin listener asks.
    pub fn health(&self) -> Arc<dyn Health> {
        unreachable!()
    }

    /// Serves until `shutdown` resolves, then drains; returns when the last connection is gone.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        shutdown.await;
        Ok(())
    }
}
