//! Logs and metrics, set up once, by the binary.

pub mod event_loop_lag;
pub mod log;
pub mod metrics;

pub use event_loop_lag::EventLoopLag;
