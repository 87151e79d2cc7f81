//! Public ids of connections.

use std::fmt;
use std::str::FromStr;

use rand::Rng;

/// The public id of a connection, `digits.digits`.
///
/// Every official server library rejects other forms. Ids come from a cryptographic generator and are never reused,
/// because channel signatures cover the id and do not expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    left: u64,
    right: u64,
}

/// The error for a text that is not `digits.digits`, or whose numbers are outside the range that servers of this
/// protocol use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("socket id is not of the form digits.digits")]
pub struct SocketIdError;

/// The exclusive upper bound of each number. Reverb, soketi and Sockudo use the same range, so clients accept it.
const HALF_END: u64 = 10_000_000_000;

impl SocketId {
    /// Returns a new id with 66 random bits. Two connections of a cluster never have the same id.
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

/// `u64::from_str` also accepts a leading `+`.
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
