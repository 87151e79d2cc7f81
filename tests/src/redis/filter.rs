//! A filter in front of a real Redis. It answers some commands itself, with an error or not at all.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::ports;

/// The response to a command that does not reach Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This error, for example `READONLY You can't write against a read only replica.`
    Error(&'static str),
    /// No response, now and for the rest of the connection.
    Silence,
}

/// The upper case names of the affected commands, and their response. No names mean all commands.
pub type Rule = (&'static [&'static str], Answer);

/// A running filter. It ends, with all its connections, when dropped.
pub struct Filter {
    /// The address on which it listens.
    pub port: u16,
    rule: watch::Sender<Option<Rule>>,
    acceptor: JoinHandle<()>,
}

/// The command that Redis receives instead of a replaced one. Its response marks the position of the error.
const TOKEN: &[u8] = b"answer-of-the-filter-5b1d";

impl Filter {
    /// Starts a filter for a local port. At first it forwards every command.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let rule = watch::Sender::new(None);
        let acceptor = tokio::spawn(accept(listener, ports::local(target), rule.clone()));
        Self { port, rule, acceptor }
    }

    /// Applies this rule to all further commands.
    pub fn set(&self, rule: Rule) {
        self.rule.send_replace(Some(rule));
    }

    /// Forwards all further commands, except on connections that were silenced.
    pub fn pass(&self) {
        self.rule.send_replace(None);
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, rule: watch::Sender<Option<Rule>>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(target).await else { continue };
        for stream in [&near, &far] {
            // The option only makes the filter faster.
            let _ = stream.set_nodelay(true);
        }
        let (near_reads, near_writes) = near.into_split();
        let (far_reads, far_writes) = far.into_split();
        // Replaces the markers with errors. Responses arrive in the order of the commands.
        let (errors, replacements) = tokio::sync::mpsc::unbounded_channel();
        let (silenced, is_silenced) = watch::channel(false);
        let rule = rule.clone();
        connections.spawn(async move {
            // If one side ends, the other is closed.
            tokio::select! {
                () = commands(near_reads, far_writes, &rule, errors, &silenced) => {}
                () = answers(far_reads, near_writes, replacements, is_silenced) => {}
            }
        });
    }
}

async fn commands(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rule: &watch::Sender<Option<Rule>>,
    errors: tokio::sync::mpsc::UnboundedSender<&'static str>,
    silenced: &watch::Sender<bool>,
) {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        while let Some((length, name)) = first_command(&bytes) {
            let command: Vec<u8> = bytes.drain(..length).collect();
            let answer = match *rule.borrow() {
                Some((names, answer)) if names.is_empty() || names.contains(&name.as_str()) => Some(answer),
                _ => None,
            };
            let forwarded = match answer {
                None => command,
                Some(Answer::Error(text)) => {
                    let _ = errors.send(text);
                    [format!("*2\r\n$4\r\nECHO\r\n${}\r\n", TOKEN.len()).as_bytes(), TOKEN, b"\r\n"].concat()
                }
                Some(Answer::Silence) => {
                    silenced.send_replace(true);
                    continue;
                }
            };
            if to.write_all(&forwarded).await.is_err() {
                return;
            }
        }
        match from.read(&mut piece).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
            _ => return,
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut errors: tokio::sync::mpsc::UnboundedReceiver<&'static str>,
    silenced: watch::Receiver<bool>,
) {
    let token = [format!("${}\r\n", TOKEN.len()).as_bytes(), TOKEN, b"\r\n"].concat();
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match from.read(&mut piece).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
            _ => return,
        }
        while let Some(at) = bytes.windows(token.len()).position(|window| window == token) {
            let Some(error) = errors.recv().await else { return };
            bytes.splice(at..at + token.len(), format!("-{error}\r\n").into_bytes());
        }
        // The beginning of a marker can be at the end of the buffer.
        let kept = (1..token.len().min(bytes.len() + 1)).rev().find(|count| bytes.ends_with(&token[..*count]));
        let ready: Vec<u8> = bytes.drain(..bytes.len() - kept.unwrap_or(0)).collect();
        if *silenced.borrow() {
            continue;
        }
        if to.write_all(&ready).await.is_err() {
            return;
        }
    }
}

/// Returns the length and the name of the first command, if it is complete.
fn first_command(bytes: &[u8]) -> Option<(usize, String)> {
    let (words, mut at) = number(bytes, 0, b'*')?;
    let mut name = String::new();
    for word in 0..words {
        let (length, start) = number(bytes, at, b'$')?;
        let end = start + length;
        if bytes.len() < end + 2 {
            return None;
        }
        if word == 0 {
            name = String::from_utf8_lossy(&bytes[start..end]).to_uppercase();
        }
        at = end + 2;
    }
    Some((at, name))
}

/// Returns a number behind its mark, and the position after it.
fn number(bytes: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.windows(2).position(|window| window == b"\r\n")?;
    assert_eq!(rest[0], mark, "clients send arrays of bulk strings");
    let digits = std::str::from_utf8(&rest[1..end]).expect("numbers are ASCII");
    Some((digits.parse().expect("a number"), at + end + 2))
}
