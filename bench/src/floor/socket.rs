//! A socket of the floor, with its queued output and its unparsed input.

use std::io::{self, IoSlice, Read, Write};

use mio::net::TcpStream;

/// A client's connection.
pub(super) struct Socket {
    stream: TcpStream,
    /// Bytes that are not written yet.
    waiting: Vec<u8>,
    /// The received part of an incomplete frame or request.
    pub(super) partial: Vec<u8>,
    /// Whether the handshake is complete.
    pub(super) upgraded: bool,
    pub(super) open: bool,
    /// The number of the channel that it is subscribed to.
    pub(super) channel: Option<u32>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, waiting: Vec::new(), partial: Vec::new(), upgraded: false, open: true, channel: None }
    }

    /// Reads into `buffer`. Returns the number of bytes read, which is 0 if nothing is available or the socket is closed.
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

    /// Writes the queued bytes, then `slices`. Returns whether everything is written. A closed socket discards all bytes.
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
        // A plain write is cheaper than a vectored write of one slice.
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

    /// Queues bytes for the next [`Self::flush`].
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.open {
            self.waiting.extend_from_slice(bytes);
        }
    }

    /// Writes the queued bytes. Returns whether everything is written.
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
        // Only once, because each shutdown wakes the loop again.
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        // The client may have closed the connection already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
