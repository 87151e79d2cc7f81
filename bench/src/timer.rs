//! A timer that wakes an epoll loop to the microsecond; its own timeouts are rounded to milliseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Wakes once at a set moment.
pub(crate) struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// # Errors
    /// Returns an error if the system has no descriptor left.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd })
    }

    /// Sets the moment, by [`crate::clock::now_ns`]; one that has passed wakes at once.
    ///
    /// # Errors
    /// Returns an error if the system refuses.
    pub(crate) fn set(&self, due_ns: u64) -> io::Result<()> {
        // 0 would switch it off.
        let due_ns = due_ns.max(1);
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let value = Timespec { tv_sec: number(due_ns / 1_000_000_000), tv_nsec: number(due_ns % 1_000_000_000) };
        let off = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(
            self.fd.as_fd(),
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec { it_interval: off, it_value: value },
        )?;
        Ok(())
    }
}
