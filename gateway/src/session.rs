//! The protocol state of one connection, and the action for each of its messages. The session does no IO and reads no
//! clock.

pub(crate) mod subscriptions;

use std::sync::Arc;
use std::time::Instant;

use shared::allowance::Allowance;
use shared::app::{App, WebhookKind, as_usize};
use shared::auth::{verify_channel, verify_user};
use shared::cluster::webhook::Occurrence;
use shared::protocol::event::EventName;
use shared::protocol::{
    ChannelKind, ChannelName, ClientFrame, Member, MemberError, ServerFrame, SocketId, User, UserId,
};

use crate::limits::{REQUESTS_EXTRA, REQUESTS_PER_SECOND};
use crate::reject::{ClientEventError, Refusal, SignInError, SubscribeError};
use subscriptions::{HubSlot, Subscription, Subscriptions, Ticket};

/// The protocol state of one connection.
pub(crate) struct Session {
    socket_id: SocketId,
    app: Arc<App>,
    pub(crate) subscriptions: Subscriptions,
    user: Option<Box<SignedIn>>,
    /// The rate of client events.
    client_events: Allowance,
    /// The rate of subscriptions and sign-ins, including refused ones.
    requests: Allowance,
    /// Whether the connection has ever sent a valid signature of the app.
    authorized: bool,
}

/// The user of a connection, after the sign-in is verified.
pub(crate) struct SignedIn {
    pub(crate) user: User,
    /// The connection's slot in the user's channel; `None` until the sign-in is registered in the cluster.
    pub(crate) slot: Option<HubSlot>,
    pub(crate) watched: Vec<Watched>,
}

/// A user on the watchlist of a signed-in connection.
pub(crate) struct Watched {
    pub(crate) user_id: UserId,
    /// The online state that the client was last notified of, if any.
    pub(crate) notified: Option<bool>,
    /// The connection's slot among the watchers of the user.
    pub(crate) slot: Option<HubSlot>,
}

/// The action that the shard performs for a message.
#[derive(Debug)]
pub(crate) enum Action {
    /// Nothing.
    Nothing,
    /// Send this JSON.
    Send(String),
    /// Enter the channel, then reply. The session has a pending subscription with this ticket.
    Subscribe { channel: ChannelName, member: Option<Member>, ticket: Ticket },
    /// Reply as to a new subscription, without entering again.
    Resubscribe { channel: ChannelName, ticket: Ticket },
    /// Leave the channel. The session has removed the subscription.
    Unsubscribe(Subscription),
    /// Enter the user's channel, then reply. `too_long`: the refusal of the rest of a watchlist that is too long.
    SignIn { user_channel: ChannelName, user_data: String, too_long: Option<Refusal> },
    /// Publish this event to the other subscribers.
    ///
    /// `webhook`: the webhook event, if the app receives webhooks for client events.
    Publish { channel: ChannelName, name: String, json: String, webhook: Option<Occurrence> },
}

impl Session {
    /// Creates the session of a new connection.
    pub(crate) fn new(socket_id: SocketId, app: Arc<App>) -> Self {
        Self {
            socket_id,
            app,
            subscriptions: Subscriptions::default(),
            user: None,
            client_events: Allowance::default(),
            requests: Allowance::default(),
            authorized: false,
        }
    }

    /// Returns the user, after the sign-in is verified.
    pub(crate) fn signed_in(&mut self) -> Option<&mut SignedIn> {
        self.user.as_deref_mut()
    }

    /// Removes and returns the sign-in.
    pub(crate) fn sign_out(&mut self) -> Option<Box<SignedIn>> {
        self.user.take()
    }

    /// Whether the connection has ever signed in or subscribed to a channel that needs a signature.
    pub(crate) fn is_authorized(&self) -> bool {
        self.authorized
    }

    /// Returns the action for one message. `now`: the time for the rates of client events and of requests.
    ///
    /// # Errors
    /// The [`Refusal`] that is sent to the client instead.
    pub(crate) fn on_frame(&mut self, frame: ClientFrame<'_>, now: Instant) -> Result<Action, Refusal> {
        match frame {
            ClientFrame::Ping => Ok(Action::Send(ServerFrame::Pong.encode())),
            ClientFrame::Pong => Ok(Action::Nothing),
            ClientFrame::Subscribe { channel, auth, channel_data } => {
                match self.subscribe(&channel, auth.as_deref(), channel_data.as_deref(), now) {
                    Ok(action) => Ok(action),
                    Err(reason) => Err(Refusal::Subscription { channel, reason }),
                }
            }
            ClientFrame::BadSubscribe { channel, field, found } => {
                let reason = match ChannelName::parse(&channel, self.app.limits.channel_name_length) {
                    Ok(_) => SubscribeError::Field { field, found },
                    Err(cause) => SubscribeError::Name(cause),
                };
                Err(Refusal::Subscription { channel, reason })
            }
            ClientFrame::BadSignIn { field, found } => Err(Refusal::SignIn(SignInError::Field { field, found })),
            ClientFrame::Unsubscribe { channel } => {
                let known = self.subscriptions.remove(&channel);
                Ok(known.map_or(Action::Nothing, Action::Unsubscribe))
            }
            ClientFrame::SignIn { auth, user_data } => {
                let signed_in = match self.may_request(now) {
                    true => self.sign_in(&auth, user_data),
                    false => Err(SignInError::RateLimited),
                };
                signed_in.map_err(Refusal::SignIn)
            }
            ClientFrame::ClientEvent { name, channel, data } => {
                self.client_event(&name, &channel, &data, now).map_err(Refusal::ClientEvent)
            }
            ClientFrame::Unknown { name } => Err(Refusal::UnknownEvent { name: name.into_owned() }),
        }
    }

    /// Whether one more subscription or sign-in is within the connection's rate.
    ///
    /// An unsubscribe always takes effect, because the subscription that it ends was counted. Clients expect no reply
    /// to it, and would not notice a refusal.
    fn may_request(&mut self, now: Instant) -> bool {
        let channels = u32::try_from(self.app.limits.channels_per_connection).unwrap_or(u32::MAX);
        self.requests.take_of_burst(1, channels.saturating_add(REQUESTS_EXTRA), REQUESTS_PER_SECOND, now)
    }

    fn subscribe(
        &mut self,
        raw: &str,
        auth: Option<&str>,
        channel_data: Option<&str>,
        now: Instant,
    ) -> Result<Action, SubscribeError> {
        // Invalid names count too.
        let is_within_rate = self.may_request(now);
        let limits = &self.app.limits;
        let channel = ChannelName::parse(raw, limits.channel_name_length).map_err(SubscribeError::Name)?;
        if !is_within_rate {
            return Err(SubscribeError::RateLimited);
        }
        if channel.kind() == ChannelKind::User {
            return self.subscribe_user_channel(&channel);
        }
        if channel.kind().needs_auth() {
            verify_channel(&self.app, self.socket_id, &channel, channel_data, auth).map_err(SubscribeError::Auth)?;
        }
        let member = if channel.kind().is_presence() { Some(self.member(channel_data)?) } else { None };
        if let Some(known) = self.subscriptions.find_mut(&channel) {
            return Ok(match known.slot {
                // The pending reply to the first request also answers this one.
                None => Action::Nothing,
                Some(_) if known.is_repeating => Action::Nothing,
                Some(_) => {
                    known.is_repeating = true;
                    Action::Resubscribe { channel, ticket: known.ticket }
                }
            });
        }
        let max = self.app.limits.channels_per_connection;
        if self.subscriptions.count() >= max {
            return Err(SubscribeError::TooManyChannels { max });
        }
        self.authorized |= channel.kind().needs_auth();
        let user_id = member.as_ref().map(|member| member.user_id.clone());
        let ticket = self.subscriptions.insert(channel.clone(), user_id);
        Ok(Action::Subscribe { channel, member, ticket })
    }

    /// Replies to a subscription of a user channel. The sign-in has already entered it, but pusher-js subscribes
    /// nevertheless.
    fn subscribe_user_channel(&self, channel: &ChannelName) -> Result<Action, SubscribeError> {
        let own = self
            .user
            .as_ref()
            .is_some_and(|signed_in| signed_in.slot.is_some() && channel.user_id() == Some(signed_in.user.id.as_str()));
        if !own {
            return Err(SubscribeError::NotThatUser);
        }
        Ok(Action::Send(ServerFrame::Subscribed { channel: channel.as_str() }.encode()))
    }

    fn member(&self, channel_data: Option<&str>) -> Result<Member, SubscribeError> {
        let limits = &self.app.limits;
        match (channel_data, &self.user) {
            (Some(data), _) => Member::parse(data, limits.user_id_length, as_usize(limits.user_info_bytes))
                .map_err(SubscribeError::Member),
            (None, Some(signed_in)) => {
                let (member, max) = (signed_in.user.as_member(), as_usize(limits.user_info_bytes));
                if member.user_info.as_ref().is_some_and(|info| info.len() > max) {
                    return Err(SubscribeError::Member(MemberError::UserInfoTooLarge { max }));
                }
                Ok(member)
            }
            (None, None) => Err(SubscribeError::NoMember),
        }
    }

    fn sign_in(&mut self, auth: &str, user_data: String) -> Result<Action, SignInError> {
        verify_user(&self.app, self.socket_id, &user_data, Some(auth)).map_err(SignInError::Auth)?;
        let limits = &self.app.limits;
        let mut user = User::parse(&user_data, limits.user_id_length).map_err(SignInError::User)?;
        let user_channel = ChannelName::of_user(user.id.as_str(), limits.user_id_length).map_err(SignInError::Id)?;
        if let Some(signed_in) = &self.user {
            if signed_in.user.id != user.id {
                return Err(SignInError::OtherUser);
            }
            return Ok(match signed_in.slot {
                None => Action::Nothing,
                Some(_) => Action::Send(ServerFrame::SignedIn { user_data: &user_data }.encode()),
            });
        }
        if !self.app.watchlist {
            user.watchlist.clear();
        }
        let too_long =
            (user.watchlist.len() > limits.watchlist).then_some(Refusal::WatchlistTooLong { max: limits.watchlist });
        user.watchlist.truncate(limits.watchlist);
        let watched = user.watchlist.iter().cloned();
        let watched = watched.map(|user_id| Watched { user_id, notified: None, slot: None }).collect();
        self.user = Some(Box::new(SignedIn { user, slot: None, watched }));
        self.authorized = true;
        Ok(Action::SignIn { user_channel, user_data, too_long })
    }

    fn client_event(
        &mut self,
        name: &str,
        channel: &str,
        data: &str,
        now: Instant,
    ) -> Result<Action, ClientEventError> {
        let limits = &self.app.limits;
        if !self.app.client_events {
            return Err(ClientEventError::Disabled);
        }
        let name = EventName::parse(name, limits.event_name_length).map_err(ClientEventError::Name)?;
        let subscription = self
            .subscriptions
            .find_by_name(channel)
            // The signature is valid. Only a presence channel can still be full.
            .filter(|known| known.slot.is_some() || !known.channel.kind().is_presence())
            .ok_or_else(|| ClientEventError::NotSubscribed { channel: channel.to_owned() })?;
        if !subscription.channel.kind().takes_client_events() {
            return Err(ClientEventError::Kind);
        }
        let max = as_usize(limits.event_bytes);
        if data.len() > max {
            return Err(ClientEventError::TooLarge { max });
        }
        let per_second = limits.client_events_per_second;
        if !self.client_events.take(1, per_second, now) {
            return Err(ClientEventError::RateLimited { per_second });
        }
        let event = ServerFrame::Event { channel, name: name.as_str(), data, user_id: subscription.user_id.as_ref() };
        let webhook = self.app.webhook_kinds().has(WebhookKind::ClientEvent).then(|| Occurrence::ClientEvent {
            event: name.as_str().to_owned(),
            data: data.to_owned(),
            socket_id: self.socket_id,
            user_id: subscription.user_id.clone(),
        });
        Ok(Action::Publish {
            channel: subscription.channel.clone(),
            name: name.as_str().to_owned(),
            json: event.encode(),
            webhook,
        })
    }
}

#[cfg(test)]
mod tests;
