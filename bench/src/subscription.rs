//! Subscription messages of clients.

use anyhow::Result;
use serde_json::json;
use shared::app::App;
use shared::auth::sign_channel;
use shared::protocol::{ChannelName, SocketId};

/// The maximum length of a channel name.
const CHANNEL_LENGTH_MAX: usize = 200;

/// Returns the subscription to a public channel, in the format of pusher-js.
pub(crate) fn public(channel: &str) -> String {
    format!(r#"{{"event":"pusher:subscribe","data":{{"auth":"","channel":"{channel}"}}}}"#)
}

/// Returns a signed subscription. `channel_data` is the member of a presence channel.
pub(crate) fn signed(app: &App, socket_id: SocketId, channel: &ChannelName, channel_data: Option<&str>) -> String {
    let auth = sign_channel(app, socket_id, channel, channel_data);
    let mut data = json!({ "auth": auth, "channel": channel.to_string() });
    if let Some(channel_data) = channel_data {
        data["channel_data"] = channel_data.into();
    }
    json!({ "event": "pusher:subscribe", "data": data }).to_string()
}

/// Parses a channel name.
pub(crate) fn name(text: &str) -> Result<ChannelName> {
    Ok(ChannelName::parse(text, CHANNEL_LENGTH_MAX)?)
}
