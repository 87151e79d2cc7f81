//! Bystanders: clients that must be served whatever another client does.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Server, TestClient};

const CHANNEL: &str = "witness";

/// One client on each of the server's two shards. The server must have been started with [`Witnesses::SETUP`], and these
/// must be its first connections: new ones go to the shard that has the fewest.
pub struct Witnesses {
    clients: [TestClient; 2],
    events: AtomicU64,
}

impl Witnesses {
    /// The line of `[server]` that makes two shards.
    pub const SETUP: &str = "shards = 2";

    /// Connects and subscribes.
    pub async fn join(server: &Server) -> Self {
        let mut clients = [server.client().await, server.client().await];
        for client in &mut clients {
            client.subscribe(CHANNEL).await;
        }
        Self { clients, events: AtomicU64::new(0) }
    }

    /// Publishes an event and waits until both have it, and nothing else.
    ///
    /// # Panics
    /// When one of them does not get it.
    pub async fn are_served(&mut self, server: &Server) {
        let data = self.events.fetch_add(1, Ordering::Relaxed).to_string();
        server.publish(CHANNEL, "seen", &data).await;
        for client in &mut self.clients {
            client.expect_event(CHANNEL, "seen", &data).await;
        }
    }
}
