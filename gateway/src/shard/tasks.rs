//! The work of a shard in the cluster for its connections: a queue of small values and a bounded number of workers.
//!
//! Work on one topic is done in order, by one worker at a time: the relay's gate allows no more. So a busy channel occupies
//! one worker, and the others serve the other channels.

mod queue;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use shared::app::App;
use shared::cluster::envelope::Topic;
use shared::protocol::{ChannelName, Member, ServerFrame, UserId};

use super::{Shard, user_topic};
use crate::connection::Connection;
use crate::inbox::{ConnectionKey, ShardMessage};
use crate::limits::TASKS_PER_TURN;
use crate::reject::{Refusal, SignInError, SubscribeError};
use crate::relay::EnterError;
use crate::session::subscriptions::Ticket;
use crate::websocket::writer;
pub(super) use queue::Tasks;
use queue::{SignInAnswer, Task, Work};

/// One socket's membership of a channel, as the cluster counts it.
pub(super) struct Entry {
    pub(super) app: Arc<App>,
    pub(super) topic: Topic,
    /// The member, in presence channels.
    pub(super) user_id: Option<UserId>,
}

/// A worker, counted until dropped.
struct Worker {
    shard: Rc<Shard>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shard.tasks.borrow_mut().workers -= 1;
        self.shard.settle();
    }
}

/// A topic that a worker is at, until dropped.
struct Busy<'a> {
    shard: &'a Shard,
    topic: Topic,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.shard.tasks.borrow_mut().release(&self.topic);
    }
}

impl Shard {
    /// Enters a channel; the answer comes through the inbox.
    pub(super) fn enter(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        channel: &ChannelName,
        member: Option<Member>,
        ticket: Ticket,
    ) {
        if self.tasks.borrow().is_full() {
            return self.enter_failed(connection, channel, ticket, EnterError::Unavailable);
        }
        let topic = Topic::new(&connection.app.id, channel);
        let work = Work::Enter { connection: self.key(connection), ticket, member: member.map(Box::new) };
        self.push_task(Task { app: connection.app.clone(), topic, work });
    }

    /// Leaves a channel on behalf of a connection that the hub does not have in it, or no longer. The queue has no bound
    /// for it: each leave takes the place of a subscription.
    pub(super) fn exit(self: &Rc<Self>, entry: Entry) {
        let Entry { app, topic, user_id } = entry;
        self.push_task(Task { app, topic, work: Work::Exit { user_id } });
    }

    /// Enters the user's channel and those of the watched users; the answer comes through the inbox.
    pub(super) fn enter_user(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        channel: &ChannelName,
        user_data: String,
        too_long: Option<Refusal>,
    ) {
        if self.tasks.borrow().is_full() {
            return self.enter_user_failed(connection);
        }
        let topic = Topic::new(&connection.app.id, channel);
        let answer = Box::new(SignInAnswer { user_data, too_long });
        let work = Work::SignIn { connection: self.key(connection), answer };
        self.push_task(Task { app: connection.app.clone(), topic, work });
    }

    /// Asks which of the watched users are online; the answer comes through the inbox. `topic`: the user's.
    pub(super) fn ask_watched(self: &Rc<Self>, connection: &Connection, topic: Topic, watched: Vec<Topic>) {
        let work = Work::AskWatched { connection: self.key(connection), watched };
        self.push_task(Task { app: connection.app.clone(), topic, work });
    }

    /// Drops the tasks of connections that ended, and makes sure that the others have workers. To be called every second.
    pub(super) fn drop_stale_tasks(self: &Rc<Self>) {
        let mut tasks = self.tasks.borrow_mut();
        if tasks.take_stale() {
            tasks.retain(|task| task.connection().is_none_or(|key| self.connection(key).is_some()));
        }
        drop(tasks);
        self.start_worker();
    }

    fn push_task(self: &Rc<Self>, task: Task) {
        self.tasks.borrow_mut().push(task);
        self.start_worker();
    }

    /// Starts a worker if a task is ready and there may be one more.
    fn start_worker(self: &Rc<Self>) {
        let mut tasks = self.tasks.borrow_mut();
        if !tasks.needs_worker() {
            return;
        }
        tasks.workers += 1;
        let worker = Worker { shard: self.clone() };
        tokio::task::spawn_local(async move { worker.shard.work().await });
    }

    /// Does tasks until none is ready.
    async fn work(self: &Rc<Self>) {
        let mut done = 0;
        loop {
            let Some(task) = self.tasks.borrow_mut().pop() else { return };
            let busy = Busy { shard: self, topic: task.topic.clone() };
            let mut current = Some(task);
            while let Some(task) = current {
                self.perform_task(task).await;
                done += 1;
                if done % TASKS_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
                current = self.tasks.borrow_mut().pop_behind(&busy.topic);
            }
        }
    }

    async fn perform_task(self: &Rc<Self>, task: Task) {
        let Task { app, topic, work } = task;
        match work {
            Work::Enter { connection, ticket, member } => {
                self.perform_enter(app, topic, connection, ticket, member).await
            }
            Work::Exit { user_id } => self.node.relay.exit(&topic, &app, self.index, user_id.as_ref()).await,
            Work::SignIn { connection, answer } => self.perform_sign_in(app, topic, connection, *answer).await,
            Work::AskWatched { connection, watched } => self.perform_ask_watched(connection, &watched).await,
        }
    }

    async fn perform_enter(
        self: &Rc<Self>,
        app: Arc<App>,
        topic: Topic,
        key: ConnectionKey,
        ticket: Ticket,
        member: Option<Box<Member>>,
    ) {
        let is_wanted = self.connection(key).is_some_and(|connection| {
            connection.session.borrow_mut().subscriptions.answered(&topic.channel, ticket).is_some()
        });
        if !is_wanted {
            return;
        }
        let user_id = member.as_ref().map(|member| member.user_id.clone());
        let entry = Entry { app: app.clone(), topic: topic.clone(), user_id };
        let relay = &self.node.relay;
        let entered = relay.enter(&topic, &app, self.index, member.as_deref(), self.until_gone(key), move |frames| {
            ShardMessage::Subscribed {
                connection: key,
                app: entry.app,
                topic: entry.topic,
                ticket,
                user_id: entry.user_id,
                frames,
            }
        });
        if let Err(error) = entered.await
            && let Some(connection) = self.connection(key)
        {
            self.enter_failed(&connection, &topic.channel, ticket, error);
        }
    }

    /// Resolves soon after the connection ended.
    async fn until_gone(&self, key: ConnectionKey) {
        const CHECK_INTERVAL: Duration = Duration::from_secs(1);
        while self.connection(key).is_some() {
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    fn enter_failed(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        channel: &ChannelName,
        ticket: Ticket,
        error: EnterError,
    ) {
        if connection.session.borrow_mut().subscriptions.refused(channel, ticket).is_none() {
            return;
        }
        let reason = match error {
            EnterError::Full => SubscribeError::PresenceFull { max: connection.app.limits.presence_members },
            EnterError::Unavailable | EnterError::Damaged => SubscribeError::Unavailable,
        };
        self.refuse(connection, &Refusal::Subscription { channel: channel.to_string(), reason });
        self.flush();
    }

    async fn perform_sign_in(self: &Rc<Self>, app: Arc<App>, topic: Topic, key: ConnectionKey, answer: SignInAnswer) {
        let Some(connection) = self.connection(key) else { return };
        let watchlist: Vec<Topic> = match connection.session.borrow_mut().signed_in() {
            Some(signed_in) => {
                let watched = signed_in.watched.iter();
                watched.filter_map(|watched| user_topic(&connection, watched.user_id.as_str())).collect()
            }
            None => return,
        };
        drop(connection);
        let relay = &self.node.relay;
        let watches = tokio::select! {
            biased;
            watches = relay.watch_all(watchlist, self.index) => watches,
            () = self.until_gone(key) => return,
        };
        let result = match watches {
            Ok(watches) => {
                let mut frames = vec![text(&ServerFrame::SignedIn { user_data: &answer.user_data }.encode())];
                if let Some(refusal) = answer.too_long {
                    frames.extend(refusal.messages().iter().map(|json| text(json)));
                }
                let (app_of_answer, topic_of_answer) = (app.clone(), topic.clone());
                let watched = watches.topics().to_vec();
                let entered = relay.enter(&topic, &app, self.index, None, self.until_gone(key), move |_| {
                    ShardMessage::SignedIn {
                        connection: key,
                        app: app_of_answer,
                        topic: topic_of_answer,
                        watched,
                        frames,
                    }
                });
                // The answer takes the watches over; without one they end here.
                entered.await.map(|()| watches.keep())
            }
            Err(error) => Err(error),
        };
        if result.is_err()
            && let Some(connection) = self.connection(key)
        {
            self.enter_user_failed(&connection);
        }
    }

    fn enter_user_failed(self: &Rc<Self>, connection: &Rc<Connection>) {
        if connection.session.borrow_mut().sign_out().is_some() {
            self.refuse(connection, &Refusal::SignIn(SignInError::Unavailable));
            self.flush();
        }
    }

    async fn perform_ask_watched(&self, connection: ConnectionKey, watched: &[Topic]) {
        let relay = &self.node.relay;
        match relay.roster().occupancy(watched).await {
            Ok(occupancies) => {
                let users = watched.iter().zip(occupancies).filter_map(|(topic, occupancy)| {
                    let user = UserId::from(topic.channel.user_id()?);
                    Some((user, occupancy.subscriptions > 0))
                });
                relay.send_to_shard(self.index, ShardMessage::Watched { connection, users: users.collect() });
            }
            // The client still receives changes; only the state at the sign-in is missing.
            Err(error) => tracing::warn!(%error, "cannot read which watched users are online"),
        }
    }
}

fn text(json: &str) -> bytes::Bytes {
    writer::text(json.as_bytes())
}
