//! A timer for an epoll loop with microsecond precision. The timeouts of epoll are rounded to milliseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A one-shot timer.
pub(crate) struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// Creates a timer that `registry` reports under `token`.
    ///
    /// # Errors
    /// Returns an error if no file descriptor is available.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd })
    }

    /// Sets the expiry on the clock of [`crate::clock::now_ns`]. A time in the past expires at once.
    ///
    /// # Errors
    /// Returns an error if the timer cannot be set.
    pub(crate) fn set(&self, due_ns: u64) -> io::Result<()> {
        // 0 would disable the timer.
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
