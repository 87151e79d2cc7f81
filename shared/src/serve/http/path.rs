//! Paths below a configured prefix.

/// Returns the part of `path` behind `prefix`, with one slash at its beginning. Returns `None` if the path does not
/// begin with `prefix`.
///
/// Clients concatenate paths from configured parts, which can double a slash. `//apps` and `/ws//apps` mean `/apps`.
pub fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let path = one_slash(path)?;
    one_slash(path.strip_prefix(prefix)?)
}

/// Replaces several slashes at the beginning of a path by one. Returns `None` if the path begins with another
/// character.
fn one_slash(path: &str) -> Option<&str> {
    let rest = path.trim_start_matches('/');
    path.get((path.len() - rest.len()).checked_sub(1)?..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_slashes_between_parts_count_as_one() {
        for (path, prefix, expected) in [
            ("/up", "", Some("/up")),
            ("/", "", Some("/")),
            ("//up", "", Some("/up")),
            ("/ws/up", "/ws", Some("/up")),
            ("/ws//up", "/ws", Some("/up")),
            ("//ws///up/", "/ws", Some("/up/")),
            ("/a/b/up", "/a/b", Some("/up")),
            ("/ws/", "/ws", Some("/")),
            ("/ws", "/ws", None),
            ("/wsup", "/ws", None),
            ("/up", "/ws", None),
            ("up", "", None),
            ("", "", None),
            ("*", "", None),
        ] {
            assert_eq!(below(path, prefix), expected, "{path} below {prefix:?}");
        }
    }
}
