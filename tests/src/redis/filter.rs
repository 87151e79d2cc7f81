//! A filter in front of a real Redis that answers some commands itself: with an error, or with nothing.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::ports;

/// The answer to a command that does not reach Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This error, such as `READONLY You can't write against a read only replica.`
    Error(&'static str),
    /// Nothing, now and for the rest of the connection.
    Silence,
}

/// Which commands are answered so, and how; by upper case names, all of them if there are none.
pub type Rule = (&'static [&'static str], Answer);

/// A running filter; it ends, with all its connections, when dropped.
pub struct Filter {
    /// Where it listens.
    pub port: u16,
    rule: watch::Sender<Option<Rule>>,
    acceptor: JoinHandle<()>,
}

/// The command that Redis gets in place of a replaced one, so that its answer has the right place.
const TOKEN: &[u8] = b"answer-of-the-filter-5b1d";

impl Filter {
    /// Starts a filter for a port of this machine; everything passes.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let rule = watch::Sender::new(None);
        let acceptor = tokio::spawn(accept(listener, ports::local(target), rule.clone()));
        Self { port, rule, acceptor }
    }

    /// From here on commands are answered by this rule.
    pub fn set(&self, rule: Rule) {
        self.rule.send_replace(Some(rule));
    }

    /// From here on everything passes, on connections that were not silenced.
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
            // It only makes the filter faster.
            let _ = stream.set_nodelay(true);
        }
        let (near_reads, near_writes) = near.into_split();
        let (far_reads, far_writes) = far.into_split();
        // The errors for the tokens. Answers come in the order of the commands.
        let (errors, replacements) = tokio::sync::mpsc::unbounded_channel();
        let (silenced, is_silenced) = watch::channel(false);
        let rule = rule.clone();
        connections.spawn(async move {
            // Whichever side ends first ends the other.
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
        // The beginning of a token may be at the end.
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

/// The length and the name of the first command, once it is complete.
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

/// A number behind its mark, and where what follows begins.
fn number(bytes: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.windows(2).position(|window| window == b"\r\n")?;
    assert_eq!(rest[0], mark, "clients send arrays of bulk strings");
    let digits = std::str::from_utf8(&rest[1..end]).expect("numbers are ASCII");
    Some((digits.parse().expect("a number"), at + end + 2))
}
