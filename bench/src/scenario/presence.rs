//! The `presence` scenario: members join one presence channel through all nodes, then half of them leave.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use memchr::memmem;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock;
use crate::figure::{Figure, Measurement};
use crate::meter::Meter;
use crate::progress::Progress;
use crate::sockets::{ConnectOptions, Receiver, Sockets};
use crate::subject::Subject;
use crate::subscription;

/// A phase ends after this time without a change of a member list.
const IDLE_TIMEOUT_NS: u64 = 10_000_000_000;

/// The channel of all members.
const CHANNEL: &str = "presence-bench";
/// The prefix of member ids. It occurs nowhere else in a message.
const MEMBER: &[u8] = b"bench-member-";
const MEMBER_DIGITS: usize = 6;

/// Members join one channel until every member sees all others; then half of them leave
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Presence {
    /// Number of members; by default, servers allow 100
    #[arg(long, default_value_t = 100)]
    pub(crate) members: usize,
}

impl Presence {
    pub(super) fn title(&self) -> String {
        format!("presence: {} members join one channel, half of them leave", self.members)
    }

    pub(super) fn run(&self, subject: &Subject, progress: &mut Progress) -> Result<Measurement> {
        let channel = subscription::name(CHANNEL)?;
        let options = ConnectOptions {
            ws: &subject.ws,
            key: subject.app.key.as_str(),
            count: self.members,
            in_flight: 64,
            greeting: &|_, _| None,
        };
        let (mut sockets, connected) = Sockets::connect(options, &mut (), progress)?;
        ensure!(connected.failed == 0, "{} sockets were refused: {:?}", connected.failed, connected.failure);

        let mut views = Views::new(self.members);
        let meter = Meter::start(&subject.pids)?;
        let started_ns = clock::now_ns();
        for index in 0..self.members {
            let socket_id = sockets.socket_id(index).context("a socket has no socket id")?;
            let data = channel_data(index);
            sockets.send(index, &subscription::signed(&subject.app, socket_id, &channel, Some(&data)));
            sockets.receive(Duration::ZERO, &mut views)?;
        }
        let all_members = Views::members(self.members, 0);
        views.wait(&mut sockets, &all_members, 0, progress)?;
        let (usage, messages_of_joining) = (meter.read()?, views.messages);
        let mut wrong = views.wrong(&all_members, 0);
        let joined_ns = views.last_ns.saturating_sub(started_ns);

        let left_ns = clock::now_ns();
        let removed = self.members / 2;
        for index in 0..removed {
            sockets.close(index);
        }
        let remaining = Views::members(self.members, removed);
        views.wait(&mut sockets, &remaining, removed, progress)?;
        wrong += views.wrong(&remaining, removed);

        let mut measurement = Measurement { processes: usage.processes.clone(), ..Measurement::default() };
        usage.set(Figure::CpuPerJoinUs, self.members as u64, &mut measurement);
        usage.set(Figure::CpuPerDeliveryUs, messages_of_joining, &mut measurement);
        measurement.set(Figure::JoinedMs, joined_ns as f64 / 1e6);
        measurement.set(Figure::HalfLeftMs, views.last_ns.saturating_sub(left_ns) as f64 / 1e6);
        measurement.set(Figure::WrongViews, wrong as f64);
        measurement.set(Figure::RepeatedChanges, views.repeated as f64);
        measurement.set(Figure::Closed, views.closed as f64);
        measurement.set(Figure::Refused, views.refused as f64);
        measurement.notes.extend(views.refusal);
        Ok(measurement)
    }
}

/// A set of members as a bit field.
type Members = Vec<u64>;

/// The member list of each socket, kept as a client library does.
struct Views {
    members: usize,
    views: Vec<Members>,
    /// The number of messages about members.
    messages: u64,
    /// Additions of members that are in the list, and removals of members that are not.
    repeated: u64,
    closed: u64,
    refused: u64,
    /// The first error message.
    refusal: Option<String>,
    /// The time of the last change of a list.
    last_ns: u64,
}

impl Views {
    fn new(members: usize) -> Self {
        Self {
            members,
            views: vec![vec![0; members.div_ceil(64)]; members],
            messages: 0,
            repeated: 0,
            closed: 0,
            refused: 0,
            refusal: None,
            last_ns: clock::now_ns(),
        }
    }

    /// Returns the set of all members but the first `without`.
    fn members(count: usize, without: usize) -> Members {
        let mut members = vec![0; count.div_ceil(64)];
        for member in without..count {
            members[member / 64] |= 1 << (member % 64);
        }
        members
    }

    /// Receives until the list of every socket from `first` on is `expected`, or until the timeout without changes.
    fn wait(&mut self, sockets: &mut Sockets, expected: &Members, first: usize, progress: &mut Progress) -> Result<()> {
        let mut since_ns = clock::now_ns();
        while self.wrong(expected, first) > 0 {
            sockets.receive(Duration::from_millis(200), self)?;
            let now_ns = clock::now_ns();
            since_ns = since_ns.max(self.last_ns);
            if now_ns.saturating_sub(since_ns) > IDLE_TIMEOUT_NS {
                break;
            }
            progress.show(now_ns, || format!("{} member lists are not complete yet", self.wrong(expected, first)));
        }
        Ok(())
    }

    /// Returns the number of sockets from `first` on whose list differs from `expected`.
    fn wrong(&self, expected: &Members, first: usize) -> usize {
        self.views[first..].iter().filter(|view| *view != expected).count()
    }

    fn change(&mut self, socket: usize, member: usize, present: bool) {
        if member >= self.members {
            return;
        }
        let (word, bit) = (member / 64, 1 << (member % 64));
        let view = &mut self.views[socket][word];
        if (*view & bit != 0) == present {
            self.repeated += 1;
        }
        *view = if present { *view | bit } else { *view & !bit };
    }
}

impl Receiver for Views {
    fn message(&mut self, socket: usize, message: &[u8], now_ns: u64) {
        let has = |part: &[u8]| memmem::find(message, part).is_some();
        if has(b":member_added\"") || has(b":member_removed\"") {
            let present = has(b":member_added\"");
            if let Some(member) = members_in(message).next() {
                self.change(socket, member, present);
            }
        } else if has(b":subscription_succeeded\"") {
            // Each member occurs twice: in the list of ids, and as a key of the user infos.
            let mut view = vec![0; self.members.div_ceil(64)];
            for member in members_in(message).filter(|member| *member < self.members) {
                view[member / 64] |= 1 << (member % 64);
            }
            self.views[socket] = view;
        } else if has(b"error\"") {
            self.refused += 1;
            self.refusal.get_or_insert_with(|| String::from_utf8_lossy(message).into_owned());
            return;
        } else {
            return;
        }
        self.messages += 1;
        self.last_ns = now_ns;
    }

    fn closed(&mut self, _: usize, _: Option<u16>) {
        self.closed += 1;
    }
}

/// Returns the members in a message, in order.
fn members_in(message: &[u8]) -> impl Iterator<Item = usize> {
    memmem::find_iter(message, MEMBER).filter_map(|at| {
        let digits = message.get(at + MEMBER.len()..at + MEMBER.len() + MEMBER_DIGITS)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

/// Returns the `channel_data` of a member.
fn channel_data(member: usize) -> String {
    let id = format!("{}{member:0MEMBER_DIGITS$}", String::from_utf8_lossy(MEMBER));
    json!({ "user_id": id, "user_info": { "name": format!("Number {member}") } }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(views: &mut Views, text: &str) {
        views.message(0, text.as_bytes(), 1);
    }

    #[test]
    fn a_view_follows_the_events_of_the_server() {
        let mut views = Views::new(3);
        receive(
            &mut views,
            r#"{"event":"pusher_internal:subscription_succeeded","data":"{\"presence\":{\"count\":2,\"ids\":[\"bench-member-000000\",\"bench-member-000001\"],\"hash\":{\"bench-member-000000\":{},\"bench-member-000001\":{}}}}"}"#,
        );
        assert_eq!(views.views[0], [0b011]);
        receive(
            &mut views,
            r#"{"event":"pusher_internal:member_added","data":"{\"user_id\":\"bench-member-000002\",\"user_info\":{}}"}"#,
        );
        assert_eq!(views.views[0], Views::members(3, 0));
        for _ in 0..2 {
            receive(
                &mut views,
                r#"{"event":"pusher_internal:member_removed","data":"{\"user_id\":\"bench-member-000000\"}"}"#,
            );
        }
        assert_eq!(views.views[0], Views::members(3, 1));
        assert_eq!((views.messages, views.repeated), (4, 1));
    }

    #[test]
    fn channel_data_has_the_member_once() {
        let data = channel_data(42);
        assert_eq!(members_in(data.as_bytes()).collect::<Vec<_>>(), [42]);
    }
}
