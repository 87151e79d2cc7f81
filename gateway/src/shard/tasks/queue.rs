//! The queue of a shard's tasks.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use shared::app::App;
use shared::cluster::envelope::Topic;
use shared::protocol::{Member, UserId};

use crate::inbox::ConnectionKey;
use crate::limits::TASKS_AT_ONCE;
use crate::reject::Refusal;
use crate::session::subscriptions::Ticket;

/// One task in the cluster.
pub(super) struct Task {
    pub(super) app: Arc<App>,
    pub(super) topic: Topic,
    pub(super) work: Work,
}

pub(super) enum Work {
    /// Subscribe to a channel.
    Enter { connection: ConnectionKey, ticket: Ticket, member: Option<Box<Member>> },
    /// Remove the entry of a connection that the hub no longer has, or never had, in the channel.
    Exit { user_id: Option<UserId> },
    /// Enter the user's channel and subscribe to the channels of the watched users.
    SignIn { connection: ConnectionKey, reply: Box<SignInReply> },
    /// Query which watched users are online.
    QueryWatched { connection: ConnectionKey, watched: Vec<Topic> },
}

/// The reply to a client whose sign-in succeeds.
pub(super) struct SignInReply {
    pub(super) user_data: String,
    pub(super) too_long: Option<Refusal>,
}

const _: () = assert!(size_of::<Task>() <= 128, "a queued task is small");

/// The tasks of a shard.
pub(in crate::shard) struct Tasks {
    ready: VecDeque<Task>,
    /// Topics whose tasks a worker does, each with the tasks behind the current one.
    busy: HashMap<Topic, VecDeque<Task>>,
    /// The number of tasks in `ready` and `busy`.
    waiting: usize,
    waiting_max: usize,
    pub(super) workers: usize,
    /// Whether a connection has ended since the last [`Tasks::take_stale`].
    may_be_stale: bool,
}

impl Tasks {
    pub(in crate::shard) fn new(waiting_max: usize) -> Self {
        Self { ready: VecDeque::new(), busy: HashMap::new(), waiting: 0, waiting_max, workers: 0, may_be_stale: false }
    }

    /// Whether no task is queued or in progress.
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.waiting == 0 && self.workers == 0
    }

    /// Records that a connection has ended.
    pub(in crate::shard) fn connection_ended(&mut self) {
        self.may_be_stale = self.waiting > 0;
    }

    /// Whether subscriptions and sign-ins must be refused.
    pub(super) fn is_full(&self) -> bool {
        self.waiting >= self.waiting_max
    }

    /// Whether one more worker is needed and allowed.
    pub(super) fn needs_worker(&self) -> bool {
        !self.ready.is_empty() && self.workers < TASKS_AT_ONCE
    }

    /// Whether connections of queued tasks may have ended since the last call.
    pub(super) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.may_be_stale)
    }

    /// Adds a task.
    pub(super) fn push(&mut self, task: Task) {
        self.waiting += 1;
        // Even if a worker has its topic, because earlier tasks of the topic may still be in this queue.
        self.ready.push_back(task);
    }

    /// Removes and returns the next task whose topic is not busy. Marks the topic as busy.
    pub(super) fn pop(&mut self) -> Option<Task> {
        while let Some(task) = self.ready.pop_front() {
            if let Some(behind) = self.busy.get_mut(&task.topic) {
                behind.push_back(task);
                continue;
            }
            self.busy.insert(task.topic.clone(), VecDeque::new());
            self.waiting -= 1;
            return Some(task);
        }
        // Release the memory of a burst of clients.
        self.ready.shrink_to(TASKS_AT_ONCE);
        None
    }

    /// Removes and returns the next task of a busy topic.
    pub(super) fn pop_behind(&mut self, topic: &Topic) -> Option<Task> {
        let task = self.busy.get_mut(topic)?.pop_front()?;
        self.waiting -= 1;
        Some(task)
    }

    /// Marks a topic as not busy. Tasks that remain after a panic are ready again.
    pub(super) fn release(&mut self, topic: &Topic) {
        for task in self.busy.remove(topic).into_iter().flatten().rev() {
            self.ready.push_front(task);
        }
    }

    /// Drops the tasks for which `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(&Task) -> bool) {
        self.ready.retain(&keep);
        let mut waiting = self.ready.len();
        for behind in self.busy.values_mut() {
            behind.retain(&keep);
            waiting += behind.len();
        }
        self.waiting = waiting;
    }
}

impl Task {
    /// Returns the connection that needs the task; `None` if the task must be done in any case.
    pub(super) fn connection(&self) -> Option<ConnectionKey> {
        match &self.work {
            Work::Enter { connection, .. }
            | Work::SignIn { connection, .. }
            | Work::QueryWatched { connection, .. } => Some(*connection),
            Work::Exit { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
