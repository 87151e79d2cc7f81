//! Paths below a configured prefix.

/// Returns what follows `prefix` in `path`, beginning with one slash; `None` for paths that do not begin with it.
///
/// Clients put paths together from configured pieces, so slashes at a seam may be doubled: `//apps` and `/ws//apps` are
/// `/apps`.
pub fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let path = one_slash(path)?;
    one_slash(path.strip_prefix(prefix)?)
}

/// The path with one slash at its start in place of several; `None` for one that starts with another character.
fn one_slash(path: &str) -> Option<&str> {
    let rest = path.trim_start_matches('/');
    path.get((path.len() - rest.len()).checked_sub(1)?..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_at_the_seams_may_be_doubled() {
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
