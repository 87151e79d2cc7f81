//! Signatures of subscriptions, sign-ins and HTTP API requests.

pub mod channel;
pub mod request;

pub use channel::{ChannelAuthError, sign_channel, sign_user, verify_channel, verify_user};
pub use request::{RequestAuthError, SignedQuery};
