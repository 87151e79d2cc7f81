//! The member list of a presence channel as a client sees it. It works like pusher-js and rejects contradictions.

use std::collections::BTreeSet;

use client::Message;
use serde_json::{Value, json};

use crate::client::{TestClient, members};
use crate::server::Server;

/// The members that one client knows.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// `None` before the client has joined.
    pub members: Option<BTreeSet<String>>,
}

impl View {
    /// Applies one message. Messages that are not about members change nothing.
    ///
    /// # Panics
    /// Panics if an added user is already known, or if a removed user is not.
    pub fn apply(&mut self, message: &Message) {
        match message.event.as_str() {
            "pusher_internal:subscription_succeeded" => self.members = Some(members(message).into_iter().collect()),
            "pusher_internal:member_added" => {
                let Some(known) = &mut self.members else { return };
                assert!(known.insert(user_of(message)), "{} was added but is known: {known:?}", message.data);
            }
            "pusher_internal:member_removed" => {
                let Some(known) = &mut self.members else { return };
                assert!(known.remove(&user_of(message)), "{} was removed but is not known: {known:?}", message.data);
            }
            _ => {}
        }
    }
}

/// Returns the user of a `member_added` or `member_removed`.
///
/// # Panics
/// Panics if it is another message.
pub fn user_of(message: &Message) -> String {
    let data: Value = serde_json::from_str(&message.data).expect("the data is JSON");
    data["user_id"].as_str().expect("user ids are strings").to_owned()
}

/// A member that records every change of a presence channel.
pub struct Observer {
    /// The connection.
    pub client: TestClient,
    /// The resulting member list.
    pub view: View,
    /// The added (`true`) and removed (`false`) users, in order, since it joined.
    pub changes: Vec<(bool, String)>,
}

impl Observer {
    /// Joins a presence channel as `user` and waits for the list.
    pub async fn join(gateway: &Server, channel: &str, user: &str) -> Self {
        let mut observer = Self { client: gateway.client().await, view: View::default(), changes: Vec::new() };
        observer.client.ask(channel, Some(&json!({ "user_id": user })));
        observer.until("pusher_internal:subscription_succeeded").await;
        observer
    }

    /// Applies all messages up to the next event of this name, and returns that event.
    pub async fn until(&mut self, event: &str) -> Message {
        loop {
            let message = self.client.next().await;
            self.take(&message);
            if message.event == event {
                return message;
            }
        }
    }

    /// Returns the members that it knows.
    ///
    /// # Panics
    /// Panics if it has not joined.
    pub fn members(&self) -> &BTreeSet<String> {
        self.view.members.as_ref().expect("it has joined")
    }

    /// Applies one message.
    pub fn take(&mut self, message: &Message) {
        self.view.apply(message);
        match message.event.as_str() {
            "pusher_internal:member_added" => self.changes.push((true, user_of(message))),
            "pusher_internal:member_removed" => self.changes.push((false, user_of(message))),
            _ => {}
        }
    }

    /// Takes the users that were added and removed so far, sorted.
    pub fn take_changes(&mut self) -> Vec<(bool, String)> {
        let mut changes = std::mem::take(&mut self.changes);
        changes.sort();
        changes
    }
}
