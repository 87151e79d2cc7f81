//! A channel name is accepted exactly when the protocol allows it, kept as it was, and of the kind that its longest
//! prefix says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::protocol::{ChannelKind, ChannelName, SocketId};

/// Short, so that the fuzzer meets the limit.
const MAX: usize = 48;
const USER_PREFIX: &str = "#server-to-user-";

fuzz_target!(|data: &[u8]| {
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let parsed = ChannelName::parse(raw, MAX);
    assert_eq!(parsed.is_ok(), is_name(raw), "{raw:?}: {parsed:?}");
    if let Ok(name) = parsed {
        assert_eq!(name.as_str(), raw);
        assert_eq!(name.kind(), kind_of(raw), "{raw:?}");
        assert_eq!(name.user_id(), raw.strip_prefix(USER_PREFIX));
        if let Some(id) = name.user_id() {
            assert_eq!(ChannelName::of_user(id, MAX).as_ref(), Ok(&name));
        }
    }
    if let Ok(id) = raw.parse::<SocketId>() {
        assert!(raw.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{raw:?}");
        assert_eq!(id.to_string().parse(), Ok(id));
    }
});

/// `^(#server-to-user-)?[A-Za-z0-9_\-=@,.;]+$`, written differently than in the crate.
fn is_name(raw: &str) -> bool {
    let rest = raw.strip_prefix(USER_PREFIX).unwrap_or(raw);
    let allowed = |character| matches!(character, 'A'..='Z' | 'a'..='z' | '0'..='9') || "_-=@,.;".contains(character);
    raw.chars().count() <= MAX && !rest.is_empty() && rest.chars().all(allowed)
}

/// By peeling one word after the other off the front.
fn kind_of(raw: &str) -> ChannelKind {
    if raw.starts_with('#') {
        return ChannelKind::User;
    }
    let peel = |text: &mut &str, word: &str| text.strip_prefix(word).inspect(|rest| *text = rest).is_some();
    let mut rest = raw;
    if peel(&mut rest, "private-") {
        let encrypted = peel(&mut rest, "encrypted-");
        return match (encrypted, peel(&mut rest, "cache-")) {
            (true, true) => ChannelKind::EncryptedCache,
            (true, false) => ChannelKind::Encrypted,
            (false, true) => ChannelKind::PrivateCache,
            (false, false) => ChannelKind::Private,
        };
    }
    if peel(&mut rest, "presence-") {
        return if peel(&mut rest, "cache-") { ChannelKind::PresenceCache } else { ChannelKind::Presence };
    }
    if peel(&mut rest, "cache-") { ChannelKind::Cache } else { ChannelKind::Public }
}
