//! Checks the Redis URL and explains mistakes. No error contains the URL, because it may contain a password.

/// The error for a URL without a more specific mistake.
pub(super) const EXPECTED: &str = "expected redis://, rediss:// or redis+unix://, with a host or a path";

/// The error for an unencoded character in the user or the password.
const UNENCODED: &str = "the user or the password contains a character that must be percent-encoded: write / as %2F, \
                         ? as %3F, # as %23, @ as %40, : as %3A and % as %25";

/// Finds mistakes that the URL parser accepts or does not explain.
///
/// # Errors
/// A text for the operator.
pub(super) fn check(url: &str) -> Result<(), &'static str> {
    let Some((scheme, rest)) = url.split_once("://") else { return Err(EXPECTED) };
    match scheme {
        "redis" | "rediss" | "valkey" | "valkeys" => check_network(rest),
        "redis+unix" | "valkey+unix" | "unix" if rest.starts_with('/') => Ok(()),
        "redis+unix" | "valkey+unix" | "unix" => {
            Err("expected a path that begins with /, as redis+unix:///run/redis.sock")
        }
        "redis-sentinel" | "rediss-sentinel" | "redis+sentinel" => {
            Err("Redis Sentinel is not supported; expected the address of the master, as redis://host:6379")
        }
        _ => Err(EXPECTED),
    }
}

fn check_network(rest: &str) -> Result<(), &'static str> {
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // Only an unencoded password puts an at sign after the host.
    if tail.contains('@') {
        return Err(UNENCODED);
    }
    if tail.contains("#insecure") {
        return Err(
            "a server's certificate is always verified; instead of #insecure name the certificate, or the one of its \
                    CA, in redis.ca_file",
        );
    }
    if tail.contains('#') {
        return Err(UNENCODED);
    }
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !is_percent_encoded(user) {
        return Err(UNENCODED);
    }
    let port = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("expected a port between 1 and 65535 behind the host");
    }
    let path = tail.split('?').next().unwrap_or_default().trim_matches('/');
    if !path.is_empty() && path.parse::<u32>().is_err() {
        return Err("expected the number of a database behind the host, as redis://host:6379/0");
    }
    Ok(())
}

/// Whether two hexadecimal digits follow each percent sign and the decoded text is UTF-8.
fn is_percent_encoded(text: &str) -> bool {
    let has_digits = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    text.split('%').skip(1).all(has_digits) && percent_encoding::percent_decode_str(text).decode_utf8().is_ok()
}
