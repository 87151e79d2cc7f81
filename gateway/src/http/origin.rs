//! Checks the origin of a page.

/// Whether a page of this origin may connect.
///
/// `allowed`: hosts, or whole origins with a scheme; `*` matches any sequence of characters. `origin`: the header of
/// the browser. A client that sends none is allowed. It is not a browser and could send any origin.
pub(crate) fn is_allowed(allowed: &[String], origin: Option<&str>) -> bool {
    let Some(origin) = origin else { return true };
    let host_and_port = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let host = without_port(host_and_port);
    allowed.iter().any(|pattern| [origin, host_and_port, host].iter().any(|text| matches(pattern, text)))
}

fn without_port(host_and_port: &str) -> &str {
    match host_and_port.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host_and_port,
    }
}

/// Whether `pattern` matches all of `text`. Letter case is ignored, as in host names.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(start) => rest = &rest[start + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests;
