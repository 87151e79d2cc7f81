//! Whole requests against a bus and a roster in memory.

mod activity;
mod batches;
mod bodies;
mod harness;
mod metrics;
mod publishing;
mod questions;
mod refusals;
mod routing;
mod signatures;
mod unavailable;
mod users;
