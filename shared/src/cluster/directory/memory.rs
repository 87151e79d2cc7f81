//! The directory of nodes that share one process.

use std::collections::HashMap;
use std::future::ready;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::Instant;

use futures_util::future::BoxFuture;

use super::{Directory, DirectoryError, TTL};
use crate::sync::lock;

/// A directory in memory.
#[derive(Default)]
pub struct MemoryDirectory {
    entries: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    node: String,
    claimed: Instant,
}

impl Entry {
    fn is_valid(&self) -> bool {
        self.claimed.elapsed() < TTL
    }
}

impl Directory for MemoryDirectory {
    fn claim<'a>(
        &'a self,
        node: &'a str,
        sessions: &'a [String],
        former: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        let mut entries = lock(&self.entries);
        entries.retain(|_, entry| entry.is_valid());
        let mut claim = |session: &String| match entries.get(session) {
            Some(entry) if entry.node != node && Some(entry.node.as_str()) != former => entry.node.clone(),
            _ => {
                entries.insert(session.clone(), Entry { node: node.to_owned(), claimed: Instant::now() });
                node.to_owned()
            }
        };
        let holders = sessions.iter().map(&mut claim).collect();
        Box::pin(ready(Ok(holders)))
    }

    fn holder<'a>(&'a self, session: &'a str) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        let entries = lock(&self.entries);
        let holder = entries.get(session).filter(|entry| entry.is_valid()).map(|entry| entry.node.clone());
        Box::pin(ready(Ok(holder)))
    }

    fn release<'a>(&'a self, node: &'a str, session: &'a str) -> BoxFuture<'a, Result<(), DirectoryError>> {
        let mut entries = lock(&self.entries);
        if entries.get(session).is_some_and(|entry| entry.node == node) {
            entries.remove(session);
        }
        Box::pin(ready(Ok(())))
    }

    fn local_address(&self) -> BoxFuture<'_, io::Result<IpAddr>> {
        Box::pin(ready(Ok(Ipv4Addr::LOCALHOST.into())))
    }
}
