//! Who is subscribed to what on the floor, and what the floor's clients say.

use std::collections::HashMap;

use serde::Deserialize;

use crate::frame;

/// The subscribers of a channel.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) name: String,
    /// Sockets by number.
    pub(super) subscribers: Vec<usize>,
    /// Members of a presence channel: their ids as JSON texts, and what else is known of them as JSON.
    pub(super) members: Vec<(String, String)>,
}

/// All channels.
#[derive(Default)]
pub(super) struct Channels {
    numbers: HashMap<String, u32>,
    all: Vec<Channel>,
}

/// A message of a client.
#[derive(Deserialize)]
pub(super) struct Message {
    pub(super) event: String,
    #[serde(default)]
    pub(super) channel: Option<String>,
    #[serde(default)]
    pub(super) data: serde_json::Value,
}

/// What a presence channel's newcomer says of itself.
#[derive(Deserialize)]
struct Member {
    user_id: serde_json::Value,
    user_info: serde_json::Value,
}

impl Channels {
    /// The number of a channel, which is made when there is none.
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).expect("fewer channels than that");
        self.all.push(Channel { name: name.to_owned(), ..Channel::default() });
        self.numbers.insert(name.to_owned(), number);
        number
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Channel {
        &mut self.all[number as usize]
    }
}

impl Channel {
    /// Adds a subscriber; returns what the others hear of it, if `data` names a member.
    pub(super) fn join(&mut self, socket: usize, data: &serde_json::Value) -> Option<String> {
        self.subscribers.push(socket);
        let text = data["channel_data"].as_str()?;
        let member: Member = serde_json::from_str(text).ok()?;
        self.members.push((member.user_id.to_string(), member.user_info.to_string()));
        Some(text.to_owned())
    }

    /// Everyone who is there, as the newcomer hears it.
    pub(super) fn snapshot(&self) -> String {
        if self.members.is_empty() {
            return "{}".to_owned();
        }
        let ids: Vec<&str> = self.members.iter().map(|(id, _)| id.as_str()).collect();
        let hash: Vec<String> = self.members.iter().map(|(id, info)| format!("{id}:{info}")).collect();
        format!(r#"{{"presence":{{"count":{},"ids":[{}],"hash":{{{}}}}}}}"#, ids.len(), ids.join(","), hash.join(","))
    }

    /// Takes a subscriber out; returns what the others hear of it, where there are members.
    pub(super) fn leave(&mut self, socket: usize) -> Option<String> {
        let place = self.subscribers.iter().position(|subscriber| *subscriber == socket)?;
        self.subscribers.swap_remove(place);
        if place >= self.members.len() {
            return None;
        }
        let (id, _) = self.members.swap_remove(place);
        Some(format!(r#"{{"user_id":{id}}}"#))
    }
}

/// The frame of a message to clients. `data`: JSON, which goes out as a text.
pub(super) fn message(event: &str, channel: &str, data: &str) -> Vec<u8> {
    let data = serde_json::Value::String(data.to_owned());
    let text = format!(r#"{{"event":"{event}","channel":"{channel}","data":{data}}}"#);
    frame::from_server(frame::TEXT, text.as_bytes())
}
