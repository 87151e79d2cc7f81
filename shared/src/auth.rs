//! Who may subscribe or sign in, and who may call the HTTP API.

pub mod channel;
pub mod request;

pub use channel::{ChannelAuthError, sign_channel, sign_user, verify_channel, verify_user};
pub use request::{RequestAuthError, SignedQuery};
