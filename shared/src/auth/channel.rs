//! Signatures that an application's backend creates for its clients.
//!
//! Source: protocol reference 3.2 and 3.3.

use crate::app::App;
use crate::excerpt::{SIGNED_TEXT_MAX, excerpt};
use crate::protocol::{ChannelName, SocketId};
use crate::secret::{Signature, constant_time_eq};

/// The reason why an `auth` text was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelAuthError {
    /// The client sent no `auth`.
    #[error("auth is missing")]
    Missing,
    /// The text is not `key:signature`.
    #[error("auth is not of the form key:signature")]
    Format,
    /// The key before the colon is not this app's.
    #[error("auth is signed with the key of another app")]
    Key,
    /// The digest is wrong. `expected_over` is the text that should have been signed. It contains no secret.
    #[error("signature does not match")]
    Signature {
        /// The text that the signature should cover.
        expected_over: String,
    },
}

impl ChannelAuthError {
    /// Returns the text for the client. It never contains the correct digest.
    pub fn client_text(&self, subject: &str) -> String {
        match self {
            Self::Missing | Self::Format => {
                format!("Auth value for {subject} is invalid: should be of format 'key:signature'")
            }
            Self::Key => format!("Auth value for {subject} is invalid: the key does not belong to this app"),
            Self::Signature { expected_over } => {
                let text = excerpt(expected_over, SIGNED_TEXT_MAX);
                format!("Invalid signature: Expected HMAC SHA256 hex digest of {text}")
            }
        }
    }

    /// Returns the error as a metric label.
    pub fn cause_label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Format => "format",
            Self::Key => "key",
            Self::Signature { .. } => "signature",
        }
    }
}

/// Returns the `auth` text with which `socket_id` may subscribe to `channel`.
///
/// `channel_data`: the exact text that the client sends.
pub fn sign_channel(app: &App, socket_id: SocketId, channel: &ChannelName, channel_data: Option<&str>) -> String {
    let signature = app.secret.sign(&[signed_text(socket_id, channel, channel_data).as_bytes()]);
    format!("{}:{}", app.key, signature.to_hex())
}

/// Returns the `auth` text that signs `socket_id` in with `user_data`.
pub fn sign_user(app: &App, socket_id: SocketId, user_data: &str) -> String {
    let signature = app.secret.sign(&[user_text(socket_id, user_data).as_bytes()]);
    format!("{}:{}", app.key, signature.to_hex())
}

/// Checks the `auth` of a subscription.
///
/// Channel data is part of the signed text. Some libraries leave it out on channels without members, so both forms are
/// accepted there. On presence channels only the full form is accepted.
///
/// # Errors
/// [`ChannelAuthError`].
pub fn verify_channel(
    app: &App,
    socket_id: SocketId,
    channel: &ChannelName,
    channel_data: Option<&str>,
    auth: Option<&str>,
) -> Result<(), ChannelAuthError> {
    let signature = signature_of(app, auth)?;
    let full = signed_text(socket_id, channel, channel_data);
    let fits = app.secret.verifies(&[full.as_bytes()], &signature);
    let short_form_allowed = channel_data.is_some() && !channel.kind().is_presence();
    if fits
        || (short_form_allowed && app.secret.verifies(&[signed_text(socket_id, channel, None).as_bytes()], &signature))
    {
        return Ok(());
    }
    Err(ChannelAuthError::Signature { expected_over: full })
}

/// Checks the `auth` of a sign-in.
///
/// # Errors
/// [`ChannelAuthError`].
pub fn verify_user(
    app: &App,
    socket_id: SocketId,
    user_data: &str,
    auth: Option<&str>,
) -> Result<(), ChannelAuthError> {
    let signature = signature_of(app, auth)?;
    let text = user_text(socket_id, user_data);
    if app.secret.verifies(&[text.as_bytes()], &signature) {
        return Ok(());
    }
    Err(ChannelAuthError::Signature { expected_over: text })
}

fn signature_of(app: &App, auth: Option<&str>) -> Result<Signature, ChannelAuthError> {
    let auth = auth.filter(|auth| !auth.is_empty()).ok_or(ChannelAuthError::Missing)?;
    // A key may contain colons, a digest cannot.
    let (key, digest) = auth.rsplit_once(':').ok_or(ChannelAuthError::Format)?;
    if !constant_time_eq(key, app.key.as_str()) {
        return Err(ChannelAuthError::Key);
    }
    Signature::from_hex(digest).ok_or(ChannelAuthError::Format)
}

fn signed_text(socket_id: SocketId, channel: &ChannelName, channel_data: Option<&str>) -> String {
    match channel_data {
        Some(data) => format!("{socket_id}:{channel}:{data}"),
        None => format!("{socket_id}:{channel}"),
    }
}

fn user_text(socket_id: SocketId, user_data: &str) -> String {
    format!("{socket_id}::user::{user_data}")
}

#[cfg(test)]
mod tests;
