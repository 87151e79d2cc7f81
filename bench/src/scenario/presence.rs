//! Members who join one presence channel, from every node of a cluster, and half of whom leave again.

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
use crate::sockets::{Connecting, Receiver, Sockets};
use crate::subject::Subject;
use crate::subscription;

/// No view getting better for this long ends a phase.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Where members meet.
const CHANNEL: &str = "presence-bench";
/// What ids begin with; nothing else in a message does.
const MEMBER: &[u8] = b"bench-member-";
const MEMBER_DIGITS: usize = 6;

/// Members who join one channel, until everyone sees everyone; then half of them leave
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Presence {
    /// Members; servers allow 100 unless told otherwise
    #[arg(long, default_value_t = 100)]
    pub(crate) members: usize,
}

impl Presence {
    pub(super) fn title(&self) -> String {
        format!("presence: {} members join one channel, half of them leave", self.members)
    }

    pub(super) fn run(&self, subject: &Subject, progress: &mut Progress) -> Result<Measurement> {
        let channel = subscription::name(CHANNEL)?;
        let wanted = Connecting {
            ws: &subject.ws,
            key: subject.app.key.as_str(),
            count: self.members,
            in_flight: 64,
            greeting: &|_, _| None,
        };
        let (mut sockets, connected) = Sockets::connect(wanted, &mut (), progress)?;
        ensure!(connected.failed == 0, "{} sockets were refused: {:?}", connected.failed, connected.failure);

        let mut views = Views::new(self.members);
        let meter = Meter::start(&subject.pids)?;
        let started_ns = clock::now_ns();
        for index in 0..self.members {
            let socket_id = sockets.socket_id(index).context("a socket without a name")?;
            let data = channel_data(index);
            sockets.send(index, &subscription::signed(&subject.app, socket_id, &channel, Some(&data)));
            sockets.receive(Duration::ZERO, &mut views)?;
        }
        let everyone = Views::members(self.members, 0);
        views.wait(&mut sockets, &everyone, 0, progress)?;
        let (usage, messages_of_joining) = (meter.read()?, views.messages);
        let mut wrong = views.wrong(&everyone, 0);
        let joined_ns = views.last_ns.saturating_sub(started_ns);

        let left_ns = clock::now_ns();
        let leaving = self.members / 2;
        for index in 0..leaving {
            sockets.close(index);
        }
        let stayers = Views::members(self.members, leaving);
        views.wait(&mut sockets, &stayers, leaving, progress)?;
        wrong += views.wrong(&stayers, leaving);

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

/// Some members, a bit for each.
type Members = Vec<u64>;

/// Who each socket believes is there, as a client library keeps it.
struct Views {
    members: usize,
    views: Vec<Members>,
    /// Messages about members.
    messages: u64,
    /// Members that were added to a view that had them, or removed from one that had not.
    repeated: u64,
    closed: u64,
    refused: u64,
    /// The first refusal.
    refusal: Option<String>,
    /// When a view last changed.
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

    /// All members but the first `without`.
    fn members(count: usize, without: usize) -> Members {
        let mut members = vec![0; count.div_ceil(64)];
        for member in without..count {
            members[member / 64] |= 1 << (member % 64);
        }
        members
    }

    /// Reads until every socket from `first` on sees `expected`, or nothing changes any more.
    fn wait(&mut self, sockets: &mut Sockets, expected: &Members, first: usize, progress: &mut Progress) -> Result<()> {
        let mut since_ns = clock::now_ns();
        while self.wrong(expected, first) > 0 {
            sockets.receive(Duration::from_millis(200), self)?;
            let now_ns = clock::now_ns();
            since_ns = since_ns.max(self.last_ns);
            if now_ns.saturating_sub(since_ns) > PATIENCE_NS {
                break;
            }
            progress.show(now_ns, || format!("{} views are not right yet", self.wrong(expected, first)));
        }
        Ok(())
    }

    /// Sockets from `first` on whose view is another one.
    fn wrong(&self, expected: &Members, first: usize) -> usize {
        self.views[first..].iter().filter(|view| *view != expected).count()
    }

    fn change(&mut self, socket: usize, member: usize, there: bool) {
        if member >= self.members {
            return;
        }
        let (word, bit) = (member / 64, 1 << (member % 64));
        let view = &mut self.views[socket][word];
        if (*view & bit != 0) == there {
            self.repeated += 1;
        }
        *view = if there { *view | bit } else { *view & !bit };
    }
}

impl Receiver for Views {
    fn message(&mut self, socket: usize, message: &[u8], now_ns: u64) {
        let has = |part: &[u8]| memmem::find(message, part).is_some();
        if has(b":member_added\"") || has(b":member_removed\"") {
            let there = has(b":member_added\"");
            if let Some(member) = members_in(message).next() {
                self.change(socket, member, there);
            }
        } else if has(b":subscription_succeeded\"") {
            // Each stands twice in it: as an id, and as a name with what is known of it.
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

/// The members that a message names, in order.
fn members_in(message: &[u8]) -> impl Iterator<Item = usize> {
    memmem::find_iter(message, MEMBER).filter_map(|at| {
        let digits = message.get(at + MEMBER.len()..at + MEMBER.len() + MEMBER_DIGITS)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

/// What a member says of itself.
fn channel_data(member: usize) -> String {
    let id = format!("{}{member:0MEMBER_DIGITS$}", String::from_utf8_lossy(MEMBER));
    json!({ "user_id": id, "user_info": { "name": format!("Number {member}") } }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(views: &mut Views, text: &str) {
        views.message(0, text.as_bytes(), 1);
    }

    #[test]
    fn a_view_follows_what_the_server_says() {
        let mut views = Views::new(3);
        told(
            &mut views,
            r#"{"event":"pusher_internal:subscription_succeeded","data":"{\"presence\":{\"count\":2,\"ids\":[\"bench-member-000000\",\"bench-member-000001\"],\"hash\":{\"bench-member-000000\":{},\"bench-member-000001\":{}}}}"}"#,
        );
        assert_eq!(views.views[0], [0b011]);
        told(
            &mut views,
            r#"{"event":"pusher_internal:member_added","data":"{\"user_id\":\"bench-member-000002\",\"user_info\":{}}"}"#,
        );
        assert_eq!(views.views[0], Views::members(3, 0));
        for _ in 0..2 {
            told(
                &mut views,
                r#"{"event":"pusher_internal:member_removed","data":"{\"user_id\":\"bench-member-000000\"}"}"#,
            );
        }
        assert_eq!(views.views[0], Views::members(3, 1));
        assert_eq!((views.messages, views.repeated), (4, 1));
    }

    #[test]
    fn what_a_member_says_names_it_once() {
        let data = channel_data(42);
        assert_eq!(members_in(data.as_bytes()).collect::<Vec<_>>(), [42]);
    }
}
