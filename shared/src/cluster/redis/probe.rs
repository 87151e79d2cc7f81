//! The probe of a primary: checks periodically that the server is a master and accepts writes.
//!
//! Only the probe makes a primary usable again. A server is used only after it has accepted a write, and a refusal is
//! detected even if the node writes nothing else.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use tokio::time::timeout;

use super::dialer::Connected;
use super::error::{LinkError, Refusal, Verdict};
use super::identity::RoleQuery;
use super::state::State;
use super::{Link, scripts};
use crate::cluster::node::NodeId;

/// The interval of the checks in the live state. If a server is demoted, events of up to this time reach only nodes
/// that are still subscribed to it.
const INTERVAL: Duration = Duration::from_secs(1);

/// The interval of the checks in all other states.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The shortest time between two checks.
const PAUSE: Duration = Duration::from_millis(100);

/// The task that checks a primary until the process ends.
pub struct Probe {
    link: Link,
    key: String,
    /// Whether an unreachable server has been logged.
    is_unreachable: bool,
    has_replied: bool,
}

impl Probe {
    /// Creates a probe of the primary of `link`.
    pub fn new(link: Link) -> Self {
        let key = link.keys().write_probe(NodeId::fresh());
        Self { link, key, is_unreachable: false, has_replied: false }
    }

    /// Checks the server periodically, and at once if another connection requests it. Never returns.
    pub async fn run(mut self) -> Infallible {
        loop {
            self.check().await;
            let primary = self.link.primary();
            let pause = if primary.state() == State::Live { INTERVAL } else { RETRY_INTERVAL };
            primary.clear_probe_requests();
            tokio::time::sleep(PAUSE).await;
            // A request of another connection ends the wait.
            let _ = timeout(pause - PAUSE, primary.probe_requested()).await;
        }
    }

    async fn check(&mut self) {
        let result = match self.link.publishing().await {
            Ok(connected) => self.check_on(&connected).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                if self.is_unreachable || !self.has_replied {
                    tracing::info!("redis is reachable and accepts writes");
                }
                (self.is_unreachable, self.has_replied) = (false, true);
            }
            Err(error) => {
                self.link.metrics().failed(error.cause_label());
                // The state of the primary logs refusals.
                if !matches!(error, LinkError::Refused(_)) {
                    self.unreachable(&error);
                }
            }
        }
    }

    fn unreachable(&mut self, error: &LinkError) {
        self.link.primary().unreachable();
        if !self.is_unreachable {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, cause, "redis is unreachable; retrying until it replies");
        }
        self.is_unreachable = true;
    }

    async fn check_on(&mut self, connected: &Connected) -> Result<(), LinkError> {
        let identity = self.link.publish_on(connected, &RoleQuery).await?;
        if let Some(refusal) = identity.refusal {
            return Err(self.refuse(connected, refusal, &identity.description));
        }
        match self.link.publish_on::<()>(connected, &scripts::probe().key(&self.key)).await {
            Ok(()) => {}
            Err(LinkError::Command(error)) => match Verdict::of(&error) {
                Verdict::Lost => return Err(error.into()),
                // This includes a user without the permission to write, because all keys share the prefix of the
                // probe's key.
                _ => return Err(self.refuse(connected, Refusal::WriteFailed, &error.to_string())),
            },
            Err(error) => {
                // The next check connects again, since the address may lead to a different server.
                if matches!(error, LinkError::Refused(refusal) if refusal.ends_connections()) {
                    connected.discard();
                }
                return Err(error);
            }
        }
        self.link.primary().accepted_a_write(connected.generation);
        Ok(())
    }

    fn refuse(&self, connected: &Connected, refusal: Refusal, cause: &str) -> LinkError {
        self.link.primary().refused(refusal, connected.generation, cause);
        if refusal.ends_connections() {
            connected.discard();
        }
        LinkError::Refused(refusal)
    }
}
