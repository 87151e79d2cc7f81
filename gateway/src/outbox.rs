//! What waits to be written to one client, and the burst in which a shard writes to many.
//!
//! The fast path owns nothing per client: a [`Burst`] keeps the frames once and links them to the connections that they
//! go to. Only what a full socket did not take moves into that client's own [`Outbox`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::connection::{Connection, Wire};
use crate::limits::{
    BURST_BYTES_MAX, BURST_COST_MAX, BYTES_PER_COST, FRAME_OVERHEAD_BYTES, WRITE_COST, WRITE_FRAMES_MAX,
};

/// What one client has not taken yet. Empty, and without memory of its own, for clients that keep up.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: RefCell<Option<Box<Waiting>>>,
    /// First and last link of this connection in the current burst.
    links: Cell<Option<(u32, u32)>>,
}

struct Waiting {
    frames: VecDeque<Bytes>,
    /// Bytes of the first frame that the kernel has taken already.
    taken: usize,
    /// Bytes of all frames, without those taken, and [`FRAME_OVERHEAD_BYTES`] for each.
    bytes: usize,
    /// The shard's clock when the client last took something.
    progress_s: u32,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing waits.
    All,
    /// The socket is full; its task must wait for room.
    Some,
    /// The connection is gone.
    Broken,
}

impl Outbox {
    /// What waits, in bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting.borrow().as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// Whether more waits than `limit`, in bytes of memory. Frames that are larger than the limit by themselves are not
    /// counted: they are lists of members, and a client that joins a large channel must be able to take one.
    pub(crate) fn exceeds(&self, limit: usize) -> bool {
        let waiting = self.waiting.borrow();
        let Some(waiting) = waiting.as_ref().filter(|waiting| waiting.bytes > limit) else { return false };
        let larger = waiting.frames.iter().enumerate().filter(|(_, frame)| frame.len() > limit);
        let uncounted: usize =
            larger.map(|(index, frame)| frame.len() - if index == 0 { waiting.taken } else { 0 }).sum();
        waiting.bytes - uncounted > limit
    }

    /// Since when the client has taken nothing of what waits, by the shard's clock; `None` when nothing waits.
    pub(crate) fn stalled_since_s(&self) -> Option<u32> {
        self.waiting.borrow().as_ref().map(|waiting| waiting.progress_s)
    }

    /// Writes what waits.
    pub(crate) fn flush(&self, stream: &TcpStream, now_s: u32) -> Flushed {
        let mut slot = self.waiting.borrow_mut();
        let Some(waiting) = slot.as_mut() else { return Flushed::All };
        while !waiting.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_FRAMES_MAX];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&waiting.frames) {
                let skipped = if count == 0 { waiting.taken } else { 0 };
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

    /// Takes the frame that has waited longest, for a connection that has no socket to write it to.
    pub(crate) fn take(&self, now_s: u32) -> Option<Bytes> {
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

    /// Drops what waits but the rest of a frame that has begun, so that a last word can still follow it.
    pub(crate) fn keep_only_begun_frame(&self) {
        let mut slot = self.waiting.borrow_mut();
        let Some(waiting) = slot.as_mut() else { return };
        let begun = usize::from(waiting.taken > 0);
        waiting.frames.truncate(begun);
        waiting.bytes = waiting.frames.front().map_or(0, |frame| FRAME_OVERHEAD_BYTES + frame.len() - waiting.taken);
        if waiting.frames.is_empty() {
            *slot = None;
        } else {
            waiting.frames.shrink_to_fit();
        }
    }

    /// Puts frames behind what waits. `taken` bytes of the first are with the kernel already.
    fn push(&self, frames: impl Iterator<Item = Bytes>, taken: usize, now_s: u32) {
        let mut slot = self.waiting.borrow_mut();
        let waiting = slot
            .get_or_insert_with(|| Box::new(Waiting { frames: VecDeque::new(), taken, bytes: 0, progress_s: now_s }));
        let before = waiting.frames.len();
        waiting.frames.extend(frames);
        let added: usize = waiting.frames.iter().skip(before).map(|frame| FRAME_OVERHEAD_BYTES + frame.len()).sum();
        waiting.bytes += added - taken;
    }
}

impl Waiting {
    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.frames.front() {
            let left = first.len() - self.taken;
            if written < left {
                self.taken += written;
                return;
            }
            written -= left;
            self.taken = 0;
            self.bytes -= FRAME_OVERHEAD_BYTES;
            self.frames.pop_front();
        }
    }
}

/// Frames that go out together. A connection that gets several of them costs one system call.
#[derive(Default)]
pub(crate) struct Burst {
    frames: Vec<Bytes>,
    links: Vec<Link>,
    touched: Vec<Rc<Connection>>,
    /// Bytes of all links, for the metrics.
    bytes: usize,
    /// Bytes of all frames, each once: no connection gets more than this.
    frame_bytes: usize,
}

/// One frame for one connection, and the connection's next.
struct Link {
    frame: u32,
    next: Option<u32>,
}

/// What a burst cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BurstSize {
    /// Frames times connections.
    pub(crate) messages: usize,
    /// Bytes of them.
    pub(crate) bytes: usize,
}

impl Burst {
    /// Frames times connections so far.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// Returns the cost of writing the burst, in deliveries of a large one.
    pub(crate) fn cost(&self) -> usize {
        self.links.len() + WRITE_COST * self.touched.len() + self.bytes / BYTES_PER_COST
    }

    /// Whether the burst is to be written although more waits.
    pub(crate) fn is_large(&self) -> bool {
        self.cost() >= BURST_COST_MAX || self.frame_bytes > BURST_BYTES_MAX
    }

    /// How many connections may get one more frame of so many bytes in this burst; at least one.
    pub(crate) fn room_for(&self, frame_bytes: usize) -> usize {
        let each = 1 + WRITE_COST + frame_bytes / BYTES_PER_COST;
        (BURST_COST_MAX.saturating_sub(self.cost()) / each).max(1)
    }

    /// Adds a frame; the handle is good until the burst is flushed.
    pub(crate) fn frame(&mut self, frame: Bytes) -> FrameIndex {
        let index = FrameIndex(index_of(self.frames.len()));
        self.frame_bytes += frame.len();
        self.frames.push(frame);
        index
    }

    /// The frame again, for another burst.
    pub(crate) fn copy_of(&self, frame: FrameIndex) -> Bytes {
        self.frames[frame.0 as usize].clone()
    }

    /// Appends a frame to what goes to `connection`.
    pub(crate) fn append(&mut self, connection: &Rc<Connection>, frame: FrameIndex) {
        let link = index_of(self.links.len());
        self.links.push(Link { frame: frame.0, next: None });
        self.bytes += self.frames[frame.0 as usize].len();
        match connection.outbox.links.get() {
            None => {
                connection.outbox.links.set(Some((link, link)));
                self.touched.push(connection.clone());
            }
            Some((first, last)) => {
                self.links[last as usize].next = Some(link);
                connection.outbox.links.set(Some((first, link)));
            }
        }
    }

    /// Writes to every touched connection, once. `after` hears of each connection that did not take everything.
    pub(crate) fn flush(&mut self, now_s: u32, mut after: impl FnMut(&Rc<Connection>, Flushed)) -> BurstSize {
        let size = BurstSize { messages: self.links.len(), bytes: self.bytes };
        for connection in self.touched.drain(..) {
            let Some((first, _)) = connection.outbox.links.take() else { continue };
            let flushed = write_links(&self.frames, &self.links, first, &connection, now_s);
            if flushed != Flushed::All {
                after(&connection, flushed);
            }
        }
        self.frames.clear();
        self.links.clear();
        self.bytes = 0;
        self.frame_bytes = 0;
        size
    }
}

#[cfg(feature = "benchmark")]
impl Burst {
    /// Drops the burst without writing it.
    pub(crate) fn forget(&mut self) {
        for connection in self.touched.drain(..) {
            connection.outbox.links.take();
        }
        self.frames.clear();
        self.links.clear();
        self.bytes = 0;
        self.frame_bytes = 0;
    }
}

/// A frame of the current burst.
#[derive(Clone, Copy)]
pub(crate) struct FrameIndex(u32);

fn index_of(length: usize) -> u32 {
    u32::try_from(length).expect("a burst is flushed long before four billion links")
}

/// Writes the frames of one connection, beginning with link `first`; what the socket does not take goes to its outbox.
fn write_links(frames: &[Bytes], links: &[Link], first: u32, connection: &Connection, now_s: u32) -> Flushed {
    let chain = || {
        std::iter::successors(Some(&links[first as usize]), |link| link.next.map(|next| &links[next as usize]))
            .map(|link| &frames[link.frame as usize])
    };
    let outbox = &connection.outbox;
    let Wire::Socket(stream) = &connection.wire else {
        // Requests come and take it.
        outbox.push(chain().cloned(), 0, now_s);
        return Flushed::Some;
    };
    if outbox.waiting.borrow().is_some() {
        // Someone waits already: order says that the new frames go behind.
        outbox.push(chain().cloned(), 0, now_s);
        return outbox.flush(stream, now_s);
    }
    // Straight to the socket: one that refuses is asked again by its outbox, through the runtime, which so learns of it. The
    // others spare a look at what the runtime keeps of them, memory that is cold by then.
    let link = &links[first as usize];
    let result = match link.next {
        None => SockRef::from(stream).send(&frames[link.frame as usize]),
        Some(_) => {
            let mut slices = [IoSlice::new(&[]); WRITE_FRAMES_MAX];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(chain()) {
                *slice = IoSlice::new(frame);
                count += 1;
            }
            SockRef::from(stream).send_vectored(&slices[..count])
        }
    };
    let mut written = match result {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(_) => return Flushed::Broken,
    };
    let mut rest = chain().peekable();
    while let Some(frame) = rest.peek() {
        if written < frame.len() {
            outbox.push(rest.cloned(), written, now_s);
            // Room may be left when there were more frames than slices: only a socket that refuses is full.
            return outbox.flush(stream, now_s);
        }
        written -= frame.len();
        rest.next();
    }
    Flushed::All
}

#[cfg(test)]
mod tests;
