//! The error of entering a channel.

use shared::cluster::bus::BusError;
use shared::cluster::roster::RosterError;

/// Why a channel cannot be entered. Everything that the attempt did is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnterError {
    #[error("the presence channel is full")]
    Full,
    #[error("the cluster is unavailable")]
    Unavailable,
    /// Retrying does not help.
    #[error("the state of the channel in Redis is damaged")]
    Damaged,
}

impl From<BusError> for EnterError {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<RosterError> for EnterError {
    fn from(error: RosterError) -> Self {
        match error {
            RosterError::Full => Self::Full,
            RosterError::Unavailable => Self::Unavailable,
            RosterError::Damaged => Self::Damaged,
        }
    }
}
