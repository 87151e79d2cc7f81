//! The subscriptions of a connection.

use shared::protocol::{ChannelName, UserId};

/// The name of one request to subscribe. It distinguishes a late reply from the reply to a later request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

/// The index of a subscriber or a watcher in a channel of the hub.
pub(crate) type HubSlot = u32;

/// A connection's membership of a channel.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: ChannelName,
    /// The member, in presence channels.
    pub(crate) user_id: Option<UserId>,
    pub(crate) ticket: Ticket,
    /// `None` while the subscription is pending.
    pub(crate) slot: Option<HubSlot>,
    /// Whether a repeated request waits for its reply. The same reply answers further ones.
    pub(crate) is_repeating: bool,
}

/// All subscriptions of a connection, in the order of the channel names. Most connections have few, and a sorted list
/// needs less memory than a hash table.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    sorted: Vec<Subscription>,
    tickets: u32,
    /// Pending requests that the client has unsubscribed. They count for the limit until they complete. Otherwise a
    /// client that subscribes and unsubscribes in turn could have any number of pending requests.
    abandoned: usize,
}

impl Subscriptions {
    /// Returns the number of subscriptions and pending requests.
    pub(crate) fn count(&self) -> usize {
        self.sorted.len() + self.abandoned
    }

    pub(crate) fn find_mut(&mut self, channel: &ChannelName) -> Option<&mut Subscription> {
        self.position(channel.as_str()).ok().map(|index| &mut self.sorted[index])
    }

    pub(crate) fn find_by_name(&self, channel: &str) -> Option<&Subscription> {
        self.position(channel).ok().map(|index| &self.sorted[index])
    }

    /// Adds a pending subscription. The connection must not have a subscription of the channel.
    pub(crate) fn insert(&mut self, channel: ChannelName, user_id: Option<UserId>) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets = self.tickets.wrapping_add(1);
        let index = self.position(channel.as_str()).unwrap_or_else(|index| index);
        if self.sorted.capacity() == 0 {
            // A list grows to four elements at first, and most connections need one.
            self.sorted.reserve_exact(1);
        }
        self.sorted.insert(index, Subscription { channel, user_id, ticket, slot: None, is_repeating: false });
        ticket
    }

    /// Completes a request. Returns its subscription, unless the client has unsubscribed.
    pub(crate) fn confirm(&mut self, channel: &ChannelName, ticket: Ticket) -> Option<&mut Subscription> {
        if self.by_ticket(channel, ticket).is_none() {
            self.abandoned = self.abandoned.saturating_sub(1);
        }
        self.by_ticket(channel, ticket)
    }

    /// Completes a request that failed. Removes and returns its subscription, unless the client has unsubscribed.
    pub(crate) fn fail(&mut self, channel: &ChannelName, ticket: Ticket) -> Option<Subscription> {
        self.confirm(channel, ticket)?;
        self.position(channel.as_str()).ok().map(|index| self.sorted.remove(index))
    }

    /// Completes a repeated request. Returns whether the client is still subscribed.
    pub(crate) fn confirm_again(&mut self, channel: &ChannelName, ticket: Ticket) -> bool {
        let Some(known) = self.by_ticket(channel, ticket) else { return false };
        known.is_repeating = false;
        true
    }

    /// Returns the subscription of a request, unless the client has unsubscribed.
    fn by_ticket(&mut self, channel: &ChannelName, ticket: Ticket) -> Option<&mut Subscription> {
        let index = self.position(channel.as_str()).ok()?;
        Some(&mut self.sorted[index]).filter(|known| known.ticket == ticket)
    }

    /// Removes and returns a subscription.
    pub(crate) fn remove(&mut self, channel: &str) -> Option<Subscription> {
        let removed = self.position(channel).ok().map(|index| self.sorted.remove(index))?;
        self.abandoned += usize::from(removed.slot.is_none());
        Some(removed)
    }

    /// Removes and returns all subscriptions.
    pub(crate) fn take_all(&mut self) -> Vec<Subscription> {
        std::mem::take(&mut self.sorted)
    }

    fn position(&self, channel: &str) -> Result<usize, usize> {
        self.sorted.binary_search_by(|known| known.channel.as_str().cmp(channel))
    }
}
