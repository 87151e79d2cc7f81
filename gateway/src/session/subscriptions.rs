//! A connection's subscriptions.

use shared::protocol::{ChannelName, UserId};

/// Names one request to subscribe, so that its late answer is not taken for that of a later request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

/// Where the hub keeps a subscriber of a channel.
pub(crate) type Place = u32;

/// A connection's membership of a channel.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: ChannelName,
    /// As whom, in presence channels.
    pub(crate) user_id: Option<UserId>,
    pub(crate) ticket: Ticket,
    /// `None` while the cluster has not answered.
    pub(crate) place: Option<Place>,
    /// Whether a repeated request waits for its answer; further ones are answered by the same.
    pub(crate) answering: bool,
}

/// All subscriptions of a connection, in the order of their names: most connections have a handful, and a sorted list
/// costs them no hash table.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    sorted: Vec<Subscription>,
    tickets: u32,
    /// Requests that were given up before they were answered. They count against the limit until they are: a client that
    /// subscribes and unsubscribes in turn would else have any number of them under way.
    given_up: usize,
}

impl Subscriptions {
    /// Subscriptions, and requests under way.
    pub(crate) fn held(&self) -> usize {
        self.sorted.len() + self.given_up
    }

    pub(crate) fn find_mut(&mut self, channel: &ChannelName) -> Option<&mut Subscription> {
        self.position(channel.as_str()).ok().map(|index| &mut self.sorted[index])
    }

    pub(crate) fn find_by_name(&self, channel: &str) -> Option<&Subscription> {
        self.position(channel).ok().map(|index| &self.sorted[index])
    }

    /// Adds a pending subscription. The channel must not be there yet.
    pub(crate) fn insert(&mut self, channel: ChannelName, user_id: Option<UserId>) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets = self.tickets.wrapping_add(1);
        let index = self.position(channel.as_str()).unwrap_or_else(|index| index);
        if self.sorted.capacity() == 0 {
            // A list grows to four at once, and most connections have one.
            self.sorted.reserve_exact(1);
        }
        self.sorted.insert(index, Subscription { channel, user_id, ticket, place: None, answering: false });
        ticket
    }

    /// The cluster has answered that request. Returns its subscription, unless it has been given up since.
    pub(crate) fn answered(&mut self, channel: &ChannelName, ticket: Ticket) -> Option<&mut Subscription> {
        if self.by_ticket(channel, ticket).is_none() {
            self.given_up = self.given_up.saturating_sub(1);
        }
        self.by_ticket(channel, ticket)
    }

    /// The cluster has refused that request. Returns its subscription, which is none any more, unless it has been given
    /// up since.
    pub(crate) fn refused(&mut self, channel: &ChannelName, ticket: Ticket) -> Option<Subscription> {
        self.answered(channel, ticket)?;
        self.position(channel.as_str()).ok().map(|index| self.sorted.remove(index))
    }

    /// The repeated request for that subscription is answered. Returns whether the subscription still stands.
    pub(crate) fn answered_again(&mut self, channel: &ChannelName, ticket: Ticket) -> bool {
        let Some(known) = self.by_ticket(channel, ticket) else { return false };
        known.answering = false;
        true
    }

    /// The subscription of that request, unless it has been given up since.
    fn by_ticket(&mut self, channel: &ChannelName, ticket: Ticket) -> Option<&mut Subscription> {
        let index = self.position(channel.as_str()).ok()?;
        Some(&mut self.sorted[index]).filter(|known| known.ticket == ticket)
    }

    pub(crate) fn remove(&mut self, channel: &str) -> Option<Subscription> {
        let removed = self.position(channel).ok().map(|index| self.sorted.remove(index))?;
        self.given_up += usize::from(removed.place.is_none());
        Some(removed)
    }

    /// Hands out all of them.
    pub(crate) fn take_all(&mut self) -> Vec<Subscription> {
        std::mem::take(&mut self.sorted)
    }

    fn position(&self, channel: &str) -> Result<usize, usize> {
        self.sorted.binary_search_by(|known| known.channel.as_str().cmp(channel))
    }
}
