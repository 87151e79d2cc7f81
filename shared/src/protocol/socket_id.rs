//! The public name of a connection.

use std::fmt;
use std::str::FromStr;

use rand::Rng;

/// The public name of one connection, `digits.digits`.
///
/// Every official server library refuses any other form. Drawn from a cryptographic generator and never reused, since
/// channel signatures bind to it and do not expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    left: u64,
    right: u64,
}

/// A text that is not `digits.digits`, or whose numbers no server of this protocol hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("socket id is not of the form digits.digits")]
pub struct SocketIdError;

/// Each half is below this: the range that Reverb, soketi and Sockudo stay within, so no client has seen larger ones.
const HALF_END: u64 = 10_000_000_000;

impl SocketId {
    /// A fresh id: 66 random bits, so that two live connections of a cluster never share one.
    pub fn random(rng: &mut impl Rng) -> Self {
        Self { left: rng.random_range(1..HALF_END), right: rng.random_range(1..HALF_END) }
    }
}

impl FromStr for SocketId {
    type Err = SocketIdError;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let (left, right) = raw.split_once('.').ok_or(SocketIdError)?;
        Ok(Self { left: digits(left)?, right: digits(right)? })
    }
}

/// `u64::from_str` would also take a leading `+`.
fn digits(raw: &str) -> Result<u64, SocketIdError> {
    if !raw.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SocketIdError);
    }
    raw.parse().map_err(|_| SocketIdError)
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.left, self.right)
    }
}

#[cfg(test)]
mod tests;
