//! Variables that Kubernetes sets in each container for each Service of the namespace.
//!
//! They look like configuration if the name of the Service begins with `carillon`, like `CARILLON_PORT` and
//! `CARILLON_GATEWAY_SERVICE_HOST`, or is `redis`, like `REDIS_PORT=tcp://10.0.0.1:6379`.
//!
//! Source: Kubernetes documentation, "Service", environment variables.

use std::net::IpAddr;

/// Returns whether a variable has the form that Kubernetes uses for Services. A mistyped setting like
/// `CARILLON_PORT=9000` does not.
pub fn is_of_service(name: &str, value: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let is_url = |text: &str| {
        let protocol = ["tcp://", "udp://", "sctp://"].iter().find_map(|protocol| text.strip_prefix(protocol));
        let host_and_port = protocol.and_then(|rest| rest.rsplit_once(':'));
        host_and_port.is_some_and(|(host, port)| is_address(host.trim_matches(['[', ']'])) && is_number(port))
    };
    let is_port_part = |rest: &str| {
        // `8080_TCP`, and the three names that begin with it.
        let Some((port, rest)) = rest.split_once('_') else { return false };
        is_number(port)
            && match rest.split_once('_') {
                None => matches!(rest, "TCP" | "UDP" | "SCTP") && is_url(value),
                Some(("TCP" | "UDP" | "SCTP", "PROTO")) => matches!(value, "tcp" | "udp" | "sctp"),
                Some(("TCP" | "UDP" | "SCTP", "PORT")) => is_number(value),
                Some(("TCP" | "UDP" | "SCTP", "ADDR")) => is_address(value),
                Some(_) => false,
            }
    };
    (name.ends_with("_SERVICE_HOST") && is_address(value))
        || (name.ends_with("_SERVICE_PORT") && is_number(value))
        || (has_suffix_behind(name, "_SERVICE_PORT_") && is_number(value))
        || (name.ends_with("_PORT") && is_url(value))
        || name.match_indices("_PORT_").any(|(start, part)| is_port_part(&name[start + part.len()..]))
}

/// Returns whether the name continues behind `part`.
fn has_suffix_behind(name: &str, part: &str) -> bool {
    name.split_once(part).is_some_and(|(_, rest)| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_a_service_are_recognized() {
        for prefix in ["CARILLON", "CARILLON_GATEWAY", "CARILLON_SERVER", "CARILLON_PORT_X", "CARILLON_SERVICE"] {
            for (rest, value) in [
                ("_SERVICE_HOST", "10.0.0.1"),
                ("_SERVICE_HOST", "fd00::1"),
                ("_SERVICE_PORT", "8080"),
                ("_SERVICE_PORT_HTTP", "8080"),
                ("_SERVICE_PORT_HTTP_METRICS", "9090"),
                ("_PORT", "tcp://10.0.0.1:8080"),
                ("_PORT", "tcp://[fd00::1]:8080"),
                ("_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
                ("_PORT_8080_TCP_PROTO", "tcp"),
                ("_PORT_8080_TCP_PORT", "8080"),
                ("_PORT_8080_TCP_ADDR", "10.0.0.1"),
                ("_PORT_53_UDP", "udp://10.0.0.1:53"),
                ("_PORT_53_UDP_PROTO", "udp"),
                ("_PORT_99_SCTP_ADDR", "fd00::1"),
            ] {
                assert!(is_of_service(&format!("{prefix}{rest}"), value), "{prefix}{rest}={value}");
            }
        }
    }

    #[test]
    fn mistyped_variables_are_not_those_of_a_service() {
        for (name, value) in [
            ("CARILLON_PORT", "9000"),
            ("CARILLON_PORT", "http://10.0.0.1:80"),
            ("CARILLON_SERVER_PORT", "9000"),
            ("CARILLON_SERVER_HOST", "10.0.0.1"),
            ("CARILLON_SERVICE_HOST", "localhost"),
            ("CARILLON_SERVICE_PORT", "high"),
            ("CARILLON_SERVICE_PORT_", "80"),
            ("CARILLON_REDIS_URL", "redis://10.0.0.1:6379"),
            ("CARILLON_SERVER__PROT", "8080"),
            ("CARILLON_PORT_8080", "tcp://10.0.0.1:8080"),
            ("CARILLON_PORT_8080_TCP", "8080"),
            ("CARILLON_PORT_8080_HTTP", "tcp://10.0.0.1:8080"),
            ("CARILLON_PORT_8080_TCP_NAME", "carillon"),
        ] {
            assert!(!is_of_service(name, value), "{name}={value}");
        }
    }
}
