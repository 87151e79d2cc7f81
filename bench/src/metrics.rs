//! Reads a server's metrics in the Prometheus text format.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use crate::publisher::Connection;

/// Returns the sum of all series of a counter.
///
/// # Errors
/// Returns an error if the server does not respond with status 200.
pub(crate) fn counter(address: SocketAddr, name: &str) -> Result<f64> {
    let mut connection = Connection::open(address)?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
    connection.send(request.as_bytes())?;
    let response = connection.response().with_context(|| format!("cannot read metrics of {address}"))?;
    ensure!(response.status == 200, "cannot read metrics of {address}: status {}", response.status);
    Ok(sum(&response.body, name))
}

fn sum(text: &str, name: &str) -> f64 {
    let series = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = series.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| rest.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn only_the_series_of_a_name_are_summed() {
        let text = "# HELP a_total Things.\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3\na_total_more 7\nb 1\n";
        assert_eq!(sum(text, "a_total"), 5.0);
        assert_eq!(sum(text, "b"), 1.0);
        assert_eq!(sum(text, "c"), 0.0);
    }
}
