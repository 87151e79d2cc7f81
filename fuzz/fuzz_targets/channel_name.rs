//! Checks that exactly the allowed channel names are accepted, that they are not changed, and that the longest prefix
//! determines their kind.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::protocol::{ChannelKind, ChannelName, SocketId};

/// The maximum length. It is short, which lets the fuzzer reach it.
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

/// Returns whether a name is allowed: `^(#server-to-user-)?[A-Za-z0-9_\-=@,.;]+$`, implemented differently than in the
/// crate.
fn is_name(raw: &str) -> bool {
    let rest = raw.strip_prefix(USER_PREFIX).unwrap_or(raw);
    let allowed = |character| matches!(character, 'A'..='Z' | 'a'..='z' | '0'..='9') || "_-=@,.;".contains(character);
    raw.chars().count() <= MAX && !rest.is_empty() && rest.chars().all(allowed)
}

/// Returns the kind of a name by removing one prefix at a time.
fn kind_of(raw: &str) -> ChannelKind {
    if raw.starts_with('#') {
        return ChannelKind::User;
    }
    let remove = |text: &mut &str, prefix: &str| text.strip_prefix(prefix).inspect(|rest| *text = rest).is_some();
    let mut rest = raw;
    if remove(&mut rest, "private-") {
        let encrypted = remove(&mut rest, "encrypted-");
        return match (encrypted, remove(&mut rest, "cache-")) {
            (true, true) => ChannelKind::EncryptedCache,
            (true, false) => ChannelKind::Encrypted,
            (false, true) => ChannelKind::PrivateCache,
            (false, false) => ChannelKind::Private,
        };
    }
    if remove(&mut rest, "presence-") {
        return if remove(&mut rest, "cache-") { ChannelKind::PresenceCache } else { ChannelKind::Presence };
    }
    if remove(&mut rest, "cache-") { ChannelKind::Cache } else { ChannelKind::Public }
}
