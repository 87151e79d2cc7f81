//! A keep-alive connection to an HTTP API.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The timeout for a response.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that supports pipelining. If the server closes it after a response, the next request opens a new one.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// Bytes of responses that are not parsed yet.
    bytes: Vec<u8>,
}

/// An HTTP response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// Whether the server closes the connection after this response.
    is_last: bool,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        Ok(Self { address, stream: Some(connect(address)?), bytes: Vec::new() })
    }

    pub(crate) fn send(&mut self, request: &[u8]) -> Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(connect(self.address)?),
        };
        Ok(stream.write_all(request)?)
    }

    /// Waits for the next response.
    pub(crate) fn response(&mut self) -> Result<Response> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some((response, length)) = Response::parse(&self.bytes)? {
                self.bytes.drain(..length);
                if response.is_last {
                    self.stream = None;
                    self.bytes.clear();
                }
                return Ok(response);
            }
            let stream = self.stream.as_mut().context("the server closed the connection after an earlier response")?;
            let count = stream.read(&mut chunk)?;
            ensure!(count > 0, "the server closed the connection");
            self.bytes.extend_from_slice(&chunk[..count]);
        }
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

impl Response {
    /// Parses the first response in `bytes` and returns it with its length; `None` if it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        let Some(head_end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..head_end])?;
        let status =
            head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a response has no status")?;
        let start = head_end + 4;
        let body = match header(head, "content-length") {
            Some(length) => {
                let length: usize = length.parse().context("invalid content length")?;
                bytes.get(start..start + length).map(|body| (body, start + length))
            }
            // Only the end of a chunked body matters.
            None if header(head, "transfer-encoding").is_some() => memchr::memmem::find(&bytes[start..], b"0\r\n\r\n")
                .map(|end| (&bytes[start..start + end], start + end + b"0\r\n\r\n".len())),
            None => Some((&bytes[..0], start)),
        };
        let is_last = header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok(body.map(|(body, end)| (Self { status, body: String::from_utf8_lossy(body).into_owned(), is_last }, end)))
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests;
