//! The frames that are queued for one client.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::limits::{FRAME_OVERHEAD_BYTES, WRITE_FRAMES_MAX};

/// The frames queued for one client. It is empty and needs no memory if the client keeps up.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: RefCell<Option<Box<Waiting>>>,
    /// The links of this connection in the current burst.
    pub(crate) links: Cell<Option<Links>>,
}

/// The first and the last link of a connection in the current burst.
#[derive(Clone, Copy)]
pub(crate) struct Links {
    pub(crate) first: u32,
    pub(crate) last: u32,
}

struct Waiting {
    frames: VecDeque<Bytes>,
    /// Bytes of the first frame that are already written.
    written: usize,
    /// Bytes of all frames, without those written, and [`FRAME_OVERHEAD_BYTES`] for each.
    bytes: usize,
    /// The shard's clock when bytes were last written, in seconds.
    progress_s: u32,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// The outbox is empty.
    All,
    /// The socket is full. Its task must wait for room.
    Some,
    /// The connection is broken.
    Broken,
}

impl Outbox {
    /// Whether no frame is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_none()
    }

    /// Returns the memory of all queued frames, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting.borrow().as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// Whether the queued frames use more than `limit` bytes of memory. A single frame that is larger than the limit
    /// does not count. It is a list of members, and a client that joins a large channel must be able to receive it.
    pub(crate) fn exceeds(&self, limit: usize) -> bool {
        let waiting = self.waiting.borrow();
        let Some(waiting) = waiting.as_ref().filter(|waiting| waiting.bytes > limit) else { return false };
        let larger = waiting.frames.iter().enumerate().filter(|(_, frame)| frame.len() > limit);
        let uncounted: usize =
            larger.map(|(index, frame)| frame.len() - if index == 0 { waiting.written } else { 0 }).sum();
        waiting.bytes - uncounted > limit
    }

    /// Returns when bytes were last written while frames are queued, by the shard's clock; `None` if none are queued.
    pub(crate) fn stalled_since_s(&self) -> Option<u32> {
        self.waiting.borrow().as_ref().map(|waiting| waiting.progress_s)
    }

    /// Writes the queued frames.
    pub(crate) fn flush(&self, stream: &TcpStream, now_s: u32) -> Flushed {
        let mut slot = self.waiting.borrow_mut();
        let Some(waiting) = slot.as_mut() else { return Flushed::All };
        while !waiting.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_FRAMES_MAX];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&waiting.frames) {
                let skipped = if count == 0 { waiting.written } else { 0 };
                *slice = IoSlice::new(&frame[skipped..]);
                count += 1;
            }
            match stream.try_write_vectored(&slices[..count]) {
                Ok(written) => {
                    waiting.progress_s = now_s;
                    waiting.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Some,
                Err(_) => return Flushed::Broken,
            }
        }
        *slot = None;
        Flushed::All
    }

    /// Removes and returns the oldest frame, for a connection without a socket.
    pub(crate) fn pop(&self, now_s: u32) -> Option<Bytes> {
        let mut slot = self.waiting.borrow_mut();
        let waiting = slot.as_mut()?;
        let frame = waiting.frames.front()?.clone();
        waiting.progress_s = now_s;
        waiting.advance(frame.len());
        if waiting.frames.is_empty() {
            *slot = None;
        }
        Some(frame)
    }

    /// Drops the queued frames, except the rest of a partly written one. A close frame can then follow.
    pub(crate) fn retain_partly_written(&self) {
        let mut slot = self.waiting.borrow_mut();
        let Some(waiting) = slot.as_mut() else { return };
        let retained = usize::from(waiting.written > 0);
        waiting.frames.truncate(retained);
        waiting.bytes = waiting.frames.front().map_or(0, |frame| FRAME_OVERHEAD_BYTES + frame.len() - waiting.written);
        if waiting.frames.is_empty() {
            *slot = None;
        } else {
            waiting.frames.shrink_to_fit();
        }
    }

    /// Queues frames. `written`: the bytes of the first frame that are already written.
    pub(crate) fn push(&self, frames: impl Iterator<Item = Bytes>, written: usize, now_s: u32) {
        let mut slot = self.waiting.borrow_mut();
        let waiting = slot
            .get_or_insert_with(|| Box::new(Waiting { frames: VecDeque::new(), written, bytes: 0, progress_s: now_s }));
        let before = waiting.frames.len();
        waiting.frames.extend(frames);
        let added: usize = waiting.frames.iter().skip(before).map(|frame| FRAME_OVERHEAD_BYTES + frame.len()).sum();
        waiting.bytes += added - written;
    }
}

impl Waiting {
    /// Removes `written` bytes from the front.
    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.frames.front() {
            let left = first.len() - self.written;
            if written < left {
                self.written += written;
                return;
            }
            written -= left;
            self.written = 0;
            self.bytes -= FRAME_OVERHEAD_BYTES;
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
