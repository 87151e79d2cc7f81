//! The cluster work of a shard for its connections: a queue of small tasks and a bounded number of workers.
//!
//! One worker at a time does the tasks of a topic, in order, because the relay's gate of the topic allows no more. A
//! busy channel occupies one worker, and the others serve other channels.

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
use queue::{SignInReply, Task, Work};

/// One subscription, as the cluster counts it.
pub(super) struct Entry {
    pub(super) app: Arc<App>,
    pub(super) topic: Topic,
    /// The member, in presence channels.
    pub(super) user_id: Option<UserId>,
}

/// A running worker. It is counted until it is dropped.
struct Worker {
    shard: Rc<Shard>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shard.tasks.borrow_mut().workers -= 1;
        self.shard.check_drained();
    }
}

/// A topic whose tasks a worker does, until this is dropped.
struct BusyTopic<'a> {
    shard: &'a Shard,
    topic: Topic,
}

impl Drop for BusyTopic<'_> {
    fn drop(&mut self) {
        self.shard.tasks.borrow_mut().release(&self.topic);
    }
}

impl Shard {
    /// Subscribes a connection to a channel. The reply arrives in the inbox.
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

    /// Removes the entry of a connection that the hub no longer has, or never had, in the channel. The queue is not
    /// bounded for this task, because each one replaces a subscription.
    pub(super) fn exit(self: &Rc<Self>, entry: Entry) {
        let Entry { app, topic, user_id } = entry;
        self.push_task(Task { app, topic, work: Work::Exit { user_id } });
    }

    /// Signs a connection in: enters the user's channel and subscribes to those of the watched users. The reply arrives
    /// in the inbox.
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
        let reply = Box::new(SignInReply { user_data, too_long });
        let work = Work::SignIn { connection: self.key(connection), reply };
        self.push_task(Task { app: connection.app.clone(), topic, work });
    }

    /// Queries which of the watched users are online. The result arrives in the inbox. `topic`: the user's own topic.
    pub(super) fn query_watched(self: &Rc<Self>, connection: &Connection, topic: Topic, watched: Vec<Topic>) {
        let work = Work::QueryWatched { connection: self.key(connection), watched };
        self.push_task(Task { app: connection.app.clone(), topic, work });
    }

    /// Drops the tasks of connections that have ended, and starts a worker for the others. Runs once per second.
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

    /// Starts a worker if a task is ready and the number of workers allows it.
    fn start_worker(self: &Rc<Self>) {
        let mut tasks = self.tasks.borrow_mut();
        if !tasks.needs_worker() {
            return;
        }
        tasks.workers += 1;
        let worker = Worker { shard: self.clone() };
        tokio::task::spawn_local(async move { worker.shard.work().await });
    }

    /// Does tasks until no task is ready.
    async fn work(self: &Rc<Self>) {
        let mut done = 0;
        loop {
            let Some(task) = self.tasks.borrow_mut().pop() else { return };
            let busy = BusyTopic { shard: self, topic: task.topic.clone() };
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
            Work::SignIn { connection, reply } => self.perform_sign_in(app, topic, connection, *reply).await,
            Work::QueryWatched { connection, watched } => self.perform_query_watched(connection, &watched).await,
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
        // If the client has unsubscribed in the meantime, this completes the request.
        let is_pending = self.connection(key).is_some_and(|connection| {
            connection.session.borrow_mut().subscriptions.confirm(&topic.channel, ticket).is_some()
        });
        if !is_pending {
            return;
        }
        let user_id = member.as_ref().map(|member| member.user_id.clone());
        let entry = Entry { app: app.clone(), topic: topic.clone(), user_id };
        let relay = &self.node.relay;
        let entered = relay.enter(&topic, &app, self.index, member.as_deref(), self.until_ended(key), move |frames| {
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

    /// Resolves when the connection has ended.
    async fn until_ended(&self, key: ConnectionKey) {
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
        if connection.session.borrow_mut().subscriptions.fail(channel, ticket).is_none() {
            return;
        }
        let reason = match error {
            EnterError::Full => SubscribeError::PresenceFull { max: connection.app.limits.presence_members },
            EnterError::Unavailable | EnterError::Damaged => SubscribeError::Unavailable,
        };
        self.refuse(connection, &Refusal::Subscription { channel: channel.to_string(), reason });
        self.flush();
    }

    async fn perform_sign_in(self: &Rc<Self>, app: Arc<App>, topic: Topic, key: ConnectionKey, reply: SignInReply) {
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
            () = self.until_ended(key) => return,
        };
        let result = match watches {
            Ok(watches) => {
                let mut frames = vec![text(&ServerFrame::SignedIn { user_data: &reply.user_data }.encode())];
                if let Some(refusal) = reply.too_long {
                    frames.extend(refusal.messages().iter().map(|json| text(json)));
                }
                let (app_of_reply, topic_of_reply) = (app.clone(), topic.clone());
                let watched = watches.topics().to_vec();
                let entered = relay.enter(&topic, &app, self.index, None, self.until_ended(key), move |_| {
                    ShardMessage::SignedIn {
                        connection: key,
                        app: app_of_reply,
                        topic: topic_of_reply,
                        watched,
                        frames,
                    }
                });
                // The reply keeps the watches. Without a reply they end here.
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

    async fn perform_query_watched(&self, connection: ConnectionKey, watched: &[Topic]) {
        let relay = &self.node.relay;
        match relay.roster().occupancy(watched).await {
            Ok(occupancies) => {
                let users = watched.iter().zip(occupancies).filter_map(|(topic, occupancy)| {
                    let user = UserId::from(topic.channel.user_id()?);
                    Some((user, occupancy.subscriptions > 0))
                });
                relay.send_to_shard(self.index, ShardMessage::Watched { connection, users: users.collect() });
            }
            // The client still receives changes. Only the state at the sign-in is missing.
            Err(error) => tracing::warn!(
                %error,
                "cannot read which watched users are online; the client receives later changes only"
            ),
        }
    }
}

fn text(json: &str) -> bytes::Bytes {
    writer::text(json.as_bytes())
}
