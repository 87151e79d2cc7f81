//! The channels of the floor with their subscribers, and the messages of its clients.

use std::collections::HashMap;

use serde::Deserialize;

use crate::frame;

/// A channel with its subscribers and members.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) name: String,
    /// The numbers of the subscribed sockets.
    pub(super) subscribers: Vec<usize>,
    /// The members of a presence channel: the id and the user info of each as JSON, in the order of `subscribers`.
    pub(super) members: Vec<(String, String)>,
}

/// All channels, by name and by number.
#[derive(Default)]
pub(super) struct Channels {
    numbers: HashMap<String, u32>,
    all: Vec<Channel>,
}

/// A message from a client.
#[derive(Deserialize)]
pub(super) struct Message {
    pub(super) event: String,
    #[serde(default)]
    pub(super) channel: Option<String>,
    #[serde(default)]
    pub(super) data: serde_json::Value,
}

/// The `channel_data` of a subscription to a presence channel.
#[derive(Deserialize)]
struct Member {
    user_id: serde_json::Value,
    user_info: serde_json::Value,
}

impl Channels {
    /// Returns the number of a channel, which is created if it does not exist.
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).expect("there are fewer than 2^32 channels");
        self.all.push(Channel { name: name.to_owned(), ..Channel::default() });
        self.numbers.insert(name.to_owned(), number);
        number
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Channel {
        &mut self.all[number as usize]
    }
}

impl Channel {
    /// Adds a subscriber. If `data` has a member, returns the data of the `member_added` event.
    pub(super) fn subscribe(&mut self, socket: usize, data: &serde_json::Value) -> Option<String> {
        self.subscribers.push(socket);
        let text = data["channel_data"].as_str()?;
        let member: Member = serde_json::from_str(text).ok()?;
        self.members.push((member.user_id.to_string(), member.user_info.to_string()));
        Some(text.to_owned())
    }

    /// Returns the data of the `subscription_succeeded` event, with the members of a presence channel.
    pub(super) fn snapshot(&self) -> String {
        if self.members.is_empty() {
            return "{}".to_owned();
        }
        let ids: Vec<&str> = self.members.iter().map(|(id, _)| id.as_str()).collect();
        let hash: Vec<String> = self.members.iter().map(|(id, info)| format!("{id}:{info}")).collect();
        format!(r#"{{"presence":{{"count":{},"ids":[{}],"hash":{{{}}}}}}}"#, ids.len(), ids.join(","), hash.join(","))
    }

    /// Removes a subscriber. In a presence channel, returns the data of the `member_removed` event.
    pub(super) fn unsubscribe(&mut self, socket: usize) -> Option<String> {
        let index = self.subscribers.iter().position(|subscriber| *subscriber == socket)?;
        self.subscribers.swap_remove(index);
        if index >= self.members.len() {
            return None;
        }
        let (id, _) = self.members.swap_remove(index);
        Some(format!(r#"{{"user_id":{id}}}"#))
    }
}

/// Returns the frame of an event. `data` is JSON and is sent as a string.
pub(super) fn message_frame(event: &str, channel: &str, data: &str) -> Vec<u8> {
    let data = serde_json::Value::String(data.to_owned());
    let text = format!(r#"{{"event":"{event}","channel":"{channel}","data":{data}}}"#);
    frame::from_server(frame::TEXT, text.as_bytes())
}
