//! Clients that must be served regardless of another client's behavior.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Server, TestClient};

const CHANNEL: &str = "witness";

/// One client on each of the two shards of the server. The server must use [`Witnesses::SETUP`], and these
/// must be its first connections, because new ones go to the shard that has the fewest.
pub struct Witnesses {
    clients: [TestClient; 2],
    events: AtomicU64,
}

impl Witnesses {
    /// The line of `[server]` for two shards.
    pub const SETUP: &str = "shards = 2";

    /// Connects and subscribes both clients.
    pub async fn join(server: &Server) -> Self {
        let mut clients = [server.client().await, server.client().await];
        for client in &mut clients {
            client.subscribe(CHANNEL).await;
        }
        Self { clients, events: AtomicU64::new(0) }
    }

    /// Publishes an event. Waits until both clients have received it and no other message.
    ///
    /// # Panics
    /// Panics if one of them does not receive it.
    pub async fn are_served(&mut self, server: &Server) {
        let data = self.events.fetch_add(1, Ordering::Relaxed).to_string();
        server.publish(CHANNEL, "seen", &data).await;
        for client in &mut self.clients {
            client.expect_event(CHANNEL, "seen", &data).await;
        }
    }
}
