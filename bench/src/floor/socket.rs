//! A socket of the floor: bytes out, and as much of the protocol in as it takes to be subscribed.

use std::io::{self, IoSlice, Read, Write};

use mio::net::TcpStream;

/// A client's connection.
pub(super) struct Socket {
    stream: TcpStream,
    /// What it has not taken yet.
    waiting: Vec<u8>,
    /// The start of what it said, while the rest is under way.
    pub(super) partial: Vec<u8>,
    /// Whether the upgrade is done.
    pub(super) upgraded: bool,
    pub(super) open: bool,
    /// What it is subscribed to.
    pub(super) channel: Option<u32>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, waiting: Vec::new(), partial: Vec::new(), upgraded: false, open: true, channel: None }
    }

    /// Reads until nothing is left; returns how much came into `buffer`.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        if !self.open {
            return 0;
        }
        match self.stream.read(buffer) {
            Ok(0) => {
                self.close();
                0
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.close();
                0
            }
        }
    }

    /// Writes what waits and then `slices`; returns whether nothing waits now. A closed socket takes everything.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> bool {
        if !self.open {
            return true;
        }
        if !self.waiting.is_empty() {
            for slice in slices {
                self.waiting.extend_from_slice(slice);
            }
            return self.flush();
        }
        // One slice is cheaper to give to the system by itself.
        let written = match slices {
            [one] => self.stream.write(one),
            many => self.stream.write_vectored(many),
        };
        let written = match written {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.close();
                return true;
            }
        };
        let mut skip = written;
        for slice in slices {
            if skip < slice.len() {
                self.waiting.extend_from_slice(&slice[skip..]);
            }
            skip = skip.saturating_sub(slice.len());
        }
        self.waiting.is_empty()
    }

    /// Lets something wait for the next [`Self::flush`].
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.open {
            self.waiting.extend_from_slice(bytes);
        }
    }

    /// Writes what waits; returns whether nothing waits now.
    pub(super) fn flush(&mut self) -> bool {
        while self.open && !self.waiting.is_empty() {
            match self.stream.write(&self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => self.close(),
            }
        }
        self.waiting = Vec::new();
        true
    }

    pub(super) fn is_behind(&self) -> bool {
        self.open && !self.waiting.is_empty()
    }

    pub(super) fn close(&mut self) {
        // Once: each shutdown would wake the loop again.
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        // It may be gone already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
