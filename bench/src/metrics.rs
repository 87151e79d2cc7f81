//! What a server says of itself in the text format of Prometheus.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use crate::publisher::Connection;

/// The sum of all series of a counter.
///
/// # Errors
/// Returns an error if there is no answer.
pub(crate) fn counter(address: SocketAddr, name: &str) -> Result<f64> {
    let mut connection = Connection::open(address)?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
    connection.send(request.as_bytes())?;
    let answer = connection.answer().with_context(|| format!("metrics of {address}"))?;
    ensure!(answer.status == 200, "metrics of {address}: {}", answer.status);
    Ok(sum(&answer.body, name))
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
    fn all_series_of_a_name_are_summed_and_no_others() {
        let text = "# HELP a_total Things.\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3\na_total_more 7\nb 1\n";
        assert_eq!(sum(text, "a_total"), 5.0);
        assert_eq!(sum(text, "b"), 1.0);
        assert_eq!(sum(text, "c"), 0.0);
    }
}
