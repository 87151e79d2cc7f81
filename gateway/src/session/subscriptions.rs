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
}

/// All subscriptions of a connection, in the order of their names: most connections have a handful, and a sorted list
/// costs them no hash table.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    sorted: Vec<Subscription>,
    tickets: u32,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn find(&self, channel: &ChannelName) -> Option<&Subscription> {
        self.find_by_name(channel.as_str())
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
        self.sorted.insert(index, Subscription { channel, user_id, ticket, place: None });
        ticket
    }

    /// The subscription of that request, unless it has been given up since.
    pub(crate) fn by_ticket(&mut self, channel: &ChannelName, ticket: Ticket) -> Option<&mut Subscription> {
        let index = self.position(channel.as_str()).ok()?;
        Some(&mut self.sorted[index]).filter(|known| known.ticket == ticket)
    }

    pub(crate) fn remove(&mut self, channel: &str) -> Option<Subscription> {
        self.position(channel).ok().map(|index| self.sorted.remove(index))
    }

    /// Removes the subscription of that request, unless it has been given up since.
    pub(crate) fn remove_by_ticket(&mut self, channel: &ChannelName, ticket: Ticket) -> Option<Subscription> {
        self.by_ticket(channel, ticket)?;
        self.remove(channel.as_str())
    }

    /// Hands out all of them.
    pub(crate) fn take_all(&mut self) -> Vec<Subscription> {
        std::mem::take(&mut self.sorted)
    }

    fn position(&self, channel: &str) -> Result<usize, usize> {
        self.sorted.binary_search_by(|known| known.channel.as_str().cmp(channel))
    }
}
