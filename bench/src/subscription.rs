//! What clients say to be subscribed, signed where it must be.

use anyhow::Result;
use serde_json::json;
use shared::app::App;
use shared::auth::sign_channel;
use shared::protocol::{ChannelName, SocketId};

/// Longest channel name that servers take.
const CHANNEL_LENGTH_MAX: usize = 200;

/// To a public channel, in the words of pusher-js.
pub(crate) fn public(channel: &str) -> String {
    format!(r#"{{"event":"pusher:subscribe","data":{{"auth":"","channel":"{channel}"}}}}"#)
}

/// To a channel that needs a signature.
///
/// `channel_data`: who joins, for presence channels.
pub(crate) fn signed(app: &App, socket_id: SocketId, channel: &ChannelName, channel_data: Option<&str>) -> String {
    let auth = sign_channel(app, socket_id, channel, channel_data);
    let mut data = json!({ "auth": auth, "channel": channel.to_string() });
    if let Some(channel_data) = channel_data {
        data["channel_data"] = channel_data.into();
    }
    json!({ "event": "pusher:subscribe", "data": data }).to_string()
}

/// A channel's name as the protocol's type.
pub(crate) fn name(text: &str) -> Result<ChannelName> {
    Ok(ChannelName::parse(text, CHANNEL_LENGTH_MAX)?)
}
