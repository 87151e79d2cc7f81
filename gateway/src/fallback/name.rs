//! The paths of the fallback transports.

use shared::serve::http;

use crate::transport::Transport;

/// The name of a fallback session, `KEY/SRV/SID`: the app's key and two parts that the client chose. It is the same for
/// all requests of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionName(String);

impl SessionName {
    /// Returns the app's key as in the path. It may contain slashes and percent-encoded characters.
    pub(crate) fn key(&self) -> &str {
        self.0.rsplitn(3, '/').nth(2).unwrap_or_default()
    }

    /// Returns the name as in the path.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The operation that a path requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Return messages to the client.
    Receive(Transport),
    /// Accept messages from the client.
    Send,
    /// End the session. Only other nodes request it.
    End,
}

/// The last segment of the path of [`Verb::End`].
const END: &str = "end";

/// The session and the operation of a path below `/pusher/app/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: SessionName,
    pub(crate) verb: Verb,
}

/// The maximum length of each part that the client chooses. pusher-js uses 3 digits and 8 letters.
const PART_LENGTH_MAX: usize = 64;

impl Target {
    /// Parses `{prefix}/pusher/app/{key}/{srv}/{sid}/{verb}` of a client. Returns `None` for other paths.
    pub(crate) fn parse(path: &str, prefix: &str) -> Option<Self> {
        Self::parse_from_node(path, prefix).filter(|target| target.verb != Verb::End)
    }

    /// Parses the path of a request from another node.
    pub(super) fn parse_from_node(path: &str, prefix: &str) -> Option<Self> {
        let rest = http::below(path, prefix)?.strip_prefix("/pusher/app/")?;
        let (name, verb) = rest.rsplit_once('/')?;
        let verb = match verb {
            "xhr_streaming" => Verb::Receive(Transport::XhrStreaming),
            "xhr" => Verb::Receive(Transport::XhrPolling),
            "xhr_send" => Verb::Send,
            END => Verb::End,
            _ => return None,
        };
        let mut parts = name.rsplitn(3, '/');
        let (session, server, key) = (parts.next()?, parts.next()?, parts.next()?);
        let is_part = |part: &str| {
            (1..=PART_LENGTH_MAX).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        if key.trim_matches('/').is_empty() || !is_part(server) || !is_part(session) {
            return None;
        }
        Some(Self { name: SessionName(name.to_owned()), verb })
    }
}

/// Returns the path that ends the session of `path`. `path` may have a query.
pub(super) fn end_path(path: &str) -> Option<String> {
    let path = path.split('?').next()?;
    let (session, _) = path.rsplit_once('/')?;
    Some(format!("{session}/{END}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Option<(&str, Verb)>) {
        let expected = expected.map(|(name, verb)| Target { name: SessionName(name.into()), verb });
        assert_eq!(Target::parse(path, "/ws"), expected);
    }

    #[test]
    fn a_path_names_a_session_and_an_operation() {
        let streaming = Verb::Receive(Transport::XhrStreaming);
        check("/ws/pusher/app/KEY/347/0a1b2c3d/xhr_streaming", Some(("KEY/347/0a1b2c3d", streaming)));
        check("/ws/pusher/app/KEY/0/v/xhr", Some(("KEY/0/v", Verb::Receive(Transport::XhrPolling))));
        check("/ws/pusher/app/KEY/0/v/xhr_send", Some(("KEY/0/v", Verb::Send)));
        check("/pusher/app/KEY/0/v/xhr", None);
        check("/ws/pusher/app/KEY/0/v/jsonp", None);
        check("/ws/pusher/app/KEY/0/v/w/xhr", Some(("KEY/0/v/w", Verb::Receive(Transport::XhrPolling))));
        check("/ws//pusher/app/KEY/0/v/xhr_send", Some(("KEY/0/v", Verb::Send)));
        check("/ws/pusher/app//0/v/xhr", None);
        check("/ws/pusher/app/KEY//v/xhr", None);
        check("/ws/pusher/app/KEY/0/%2f/xhr", None);
        check("/ws/pusher/app/KEY/info", None);
        check("/ws/pusher/app/KEY/0/v/end", None);
        check(&format!("/ws/pusher/app/KEY/0/{}/xhr", "a".repeat(65)), None);
    }

    #[test]
    fn the_key_precedes_the_two_parts_that_the_client_chose() {
        let target = Target::parse("/pusher/app/KEY/347/0a1b2c3d/xhr", "").unwrap();
        assert_eq!((target.name.key(), target.name.as_str()), ("KEY", "KEY/347/0a1b2c3d"));
        let target = Target::parse("/pusher/app/K%45+/Y=/347/0a1b2c3d/xhr", "").unwrap();
        assert_eq!((target.name.key(), target.name.as_str()), ("K%45+/Y=", "K%45+/Y=/347/0a1b2c3d"));
    }

    #[test]
    fn only_other_nodes_can_end_a_session() {
        let path = end_path("/ws/pusher/app/KEY/0/v/xhr_streaming?protocol=7&path=a/b").unwrap();
        let target = Target::parse_from_node(&path, "/ws").unwrap();
        assert_eq!((target.name.as_str(), target.verb), ("KEY/0/v", Verb::End));
    }
}
