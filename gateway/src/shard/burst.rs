//! The burst in which a shard writes to many clients.
//!
//! A burst stores each frame once and links it to the connections that receive it. A client that keeps up needs no
//! memory. Only frames that a full socket does not accept move into the client's own [`Outbox`](crate::outbox::Outbox).

use std::io::{self, IoSlice};
use std::rc::Rc;

use bytes::Bytes;
use socket2::SockRef;

use crate::connection::{Connection, Wire};
use crate::limits::{BURST_BYTES_MAX, BURST_COST_MAX, BYTES_PER_COST, WRITE_COST, WRITE_FRAMES_MAX};
use crate::outbox::{Flushed, Links};

/// Frames that are written together. A connection that receives several of them costs one system call.
#[derive(Default)]
pub(crate) struct Burst {
    frames: Vec<Bytes>,
    links: Vec<Link>,
    /// The connections that receive a frame.
    touched: Vec<Rc<Connection>>,
    /// The bytes of all links.
    bytes: usize,
    /// The bytes of all frames, each counted once. No connection receives more.
    frame_bytes: usize,
}

/// One frame for one connection, and the connection's next link.
struct Link {
    frame: u32,
    next: Option<u32>,
}

/// The size of a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BurstSize {
    /// The number of deliveries: frames times connections.
    pub(crate) messages: usize,
    /// The bytes of all deliveries.
    pub(crate) bytes: usize,
}

/// A frame of the current burst.
#[derive(Clone, Copy)]
pub(crate) struct FrameIndex(u32);

impl Burst {
    /// Returns the number of deliveries: frames times connections.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// Returns the cost of writing the burst, in deliveries of a large burst.
    pub(crate) fn cost(&self) -> usize {
        self.links.len() + WRITE_COST * self.touched.len() + self.bytes / BYTES_PER_COST
    }

    /// Whether the burst must be written before more is appended.
    pub(crate) fn is_large(&self) -> bool {
        self.cost() >= BURST_COST_MAX || self.frame_bytes > BURST_BYTES_MAX
    }

    /// Returns the number of connections that may receive one more frame of `frame_bytes` in this burst; at least one.
    pub(crate) fn room_for(&self, frame_bytes: usize) -> usize {
        let each = 1 + WRITE_COST + frame_bytes / BYTES_PER_COST;
        (BURST_COST_MAX.saturating_sub(self.cost()) / each).max(1)
    }

    /// Adds a frame. The index is valid until the burst is flushed.
    pub(crate) fn frame(&mut self, frame: Bytes) -> FrameIndex {
        let index = FrameIndex(index_of(self.frames.len()));
        self.frame_bytes += frame.len();
        self.frames.push(frame);
        index
    }

    /// Returns a frame, for another burst.
    pub(crate) fn copy_of(&self, frame: FrameIndex) -> Bytes {
        self.frames[frame.0 as usize].clone()
    }

    /// Appends a frame to the frames for `connection`.
    pub(crate) fn append(&mut self, connection: &Rc<Connection>, frame: FrameIndex) {
        let link = index_of(self.links.len());
        self.links.push(Link { frame: frame.0, next: None });
        self.bytes += self.frames[frame.0 as usize].len();
        match connection.outbox.links.get() {
            None => {
                connection.outbox.links.set(Some(Links { first: link, last: link }));
                self.touched.push(connection.clone());
            }
            Some(Links { first, last }) => {
                self.links[last as usize].next = Some(link);
                connection.outbox.links.set(Some(Links { first, last: link }));
            }
        }
    }

    /// Writes to every touched connection once. Calls `after` with each connection that did not accept everything.
    pub(crate) fn flush(&mut self, now_s: u32, mut after: impl FnMut(&Rc<Connection>, Flushed)) -> BurstSize {
        let size = BurstSize { messages: self.links.len(), bytes: self.bytes };
        for connection in self.touched.drain(..) {
            let Some(Links { first, .. }) = connection.outbox.links.take() else { continue };
            let flushed = write_links(&self.frames, &self.links, first, &connection, now_s);
            if flushed != Flushed::All {
                after(&connection, flushed);
            }
        }
        self.clear();
        size
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.links.clear();
        self.bytes = 0;
        self.frame_bytes = 0;
    }
}

#[cfg(feature = "benchmark")]
impl Burst {
    /// Drops the burst without writing it.
    pub(crate) fn forget(&mut self) {
        for connection in self.touched.drain(..) {
            connection.outbox.links.take();
        }
        self.clear();
    }
}

fn index_of(length: usize) -> u32 {
    u32::try_from(length).expect("a burst is flushed long before it has four billion links")
}

/// Writes the frames of one connection, starting with link `first`. Frames that the socket does not accept move into
/// its outbox.
fn write_links(frames: &[Bytes], links: &[Link], first: u32, connection: &Connection, now_s: u32) -> Flushed {
    let chain = || {
        std::iter::successors(Some(&links[first as usize]), |link| link.next.map(|next| &links[next as usize]))
            .map(|link| &frames[link.frame as usize])
    };
    let outbox = &connection.outbox;
    let Wire::Socket(stream) = &connection.wire else {
        // Requests of the client take the frames from the outbox.
        outbox.push(chain().cloned(), 0, now_s);
        return Flushed::Some;
    };
    if !outbox.is_empty() {
        // Earlier frames are still queued.
        outbox.push(chain().cloned(), 0, now_s);
        return outbox.flush(stream, now_s);
    }
    // Write directly to the socket, without the runtime's readiness state, which is cold memory. If the socket is full,
    // the outbox writes again through the runtime, which then registers for readiness.
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
            // With more frames than slices the socket may still have room.
            return outbox.flush(stream, now_s);
        }
        written -= frame.len();
        rest.next();
    }
    Flushed::All
}

#[cfg(test)]
mod tests;
