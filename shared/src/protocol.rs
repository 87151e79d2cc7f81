//! The Pusher Channels protocol, version 7, as pure data.
//!
//! It defines messages in both directions, channel names and kinds, members and close codes, for clients that announce
//! protocol 4 to 7. Sockets, timers and state belong to the gateway. Section numbers in comments refer to the protocol
//! reference of the project.

pub mod channel;
pub mod close;
pub mod event;
pub mod frame;
mod json;
pub mod member;
pub mod socket_id;

pub use channel::{ChannelKind, ChannelName, ChannelNameError};
pub use close::CloseCode;
pub use event::{EventName, EventNameError};
pub use frame::{ClientFrame, FrameError, ServerFrame};
pub use member::{Member, MemberError, User, UserError, UserId};
pub use socket_id::{SocketId, SocketIdError};

/// The protocol versions that a client may announce. Clients of versions 5 and 6 differ only in how they handle errors.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 4..=7;

/// Reads a JSON object. serde alone would also accept an array of the members in order.
fn read_object<'a, T: serde::Deserialize<'a>>(json: &'a str) -> Result<T, serde_json::Error> {
    if json.trim_ascii_start().starts_with('{') {
        serde_json::from_str(json)
    } else {
        Err(serde::de::Error::custom("not a JSON object"))
    }
}
