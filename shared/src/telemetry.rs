//! Logs and metrics, set up once, by the binary.

pub mod log;
pub mod metrics;
