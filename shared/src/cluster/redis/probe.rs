//! The probe of a primary: asks again and again whether the server is the right one and accepts writes.
//!
//! It alone brings the state of the primary back to usable. So a server is used only after it has accepted a write, and a
//! refusal is found even if nothing else of the node writes.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use tokio::time::timeout;

use super::dialer::Connected;
use super::error::{LinkError, Refusal, Verdict};
use super::identity::AskRole;
use super::primary_state::State;
use super::{Link, scripts};
use crate::cluster::node::NodeId;

/// How often the server is asked while all is well. An event that is published to a server within this time after it was
/// demoted reaches only those who subscribe there.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often it is asked otherwise.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Doubts of other connections do not make the probe ask more often than this.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks the server of a link, for as long as the process lives.
pub struct Probe {
    link: Link,
    key: String,
    /// Whether it was logged that the server does not answer.
    is_away: bool,
    has_answered: bool,
}

impl Probe {
    /// A probe of the server at the other end of `link`.
    pub fn new(link: Link) -> Self {
        let key = link.keys().write_probe(NodeId::fresh());
        Self { link, key, is_away: false, has_answered: false }
    }

    /// Asks the server at intervals, and at once when another connection doubts it. Never returns.
    pub async fn run(mut self) -> Infallible {
        loop {
            self.ask().await;
            let primary = self.link.primary();
            let pause = if primary.state() == State::Live { INTERVAL } else { RETRY_INTERVAL };
            primary.clear_probe_requests();
            tokio::time::sleep(PAUSE).await;
            // A doubt brings the next question forward.
            let _ = timeout(pause - PAUSE, primary.probe_requested()).await;
        }
    }

    async fn ask(&mut self) {
        let result = match self.link.publishing().await {
            Ok(connected) => self.ask_on(&connected).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                if self.is_away || !self.has_answered {
                    tracing::info!("redis answers");
                }
                (self.is_away, self.has_answered) = (false, true);
            }
            Err(error) => {
                self.link.metrics().failed(error.cause_label());
                // Refusals are logged where they become known.
                if !matches!(error, LinkError::Refused(_)) {
                    self.unreachable(&error);
                }
            }
        }
    }

    fn unreachable(&mut self, error: &LinkError) {
        self.link.primary().unreachable();
        if !self.is_away {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, cause, "redis does not answer; retrying until it does");
        }
        self.is_away = true;
    }

    async fn ask_on(&mut self, connected: &Connected) -> Result<(), LinkError> {
        let identity = self.link.publish_on(connected, &AskRole).await?;
        if let Some(refusal) = identity.refusal {
            return Err(self.give_up(connected, refusal, &identity.words));
        }
        match self.link.publish_on::<()>(connected, &scripts::probe().key(&self.key)).await {
            Ok(()) => {}
            Err(LinkError::Command(error)) => match Verdict::of(&error) {
                Verdict::Lost => return Err(error.into()),
                // That includes a user of Redis who may not write: every key of this program has the prefix of the probe's.
                _ => return Err(self.give_up(connected, Refusal::WriteFailed, &error.to_string())),
            },
            Err(error) => {
                // The next question goes to whatever the address means by then.
                if matches!(error, LinkError::Refused(refusal) if refusal.ends_connections()) {
                    connected.give_up();
                }
                return Err(error);
            }
        }
        self.link.primary().accepted_a_write(connected.generation);
        Ok(())
    }

    fn give_up(&self, connected: &Connected, refusal: Refusal, cause: &str) -> LinkError {
        self.link.primary().refused(refusal, connected.generation, cause);
        if refusal.ends_connections() {
            connected.give_up();
        }
        LinkError::Refused(refusal)
    }
}
