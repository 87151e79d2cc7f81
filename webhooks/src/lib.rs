//! The webhook dispatcher: reads the queues that this node leads and delivers each event in order, with retries.
//!
//! Every queue has its own worker, so a slow endpoint does not delay the others. Source: protocol reference 5.

mod address;
mod client;
mod config;
mod context;
mod delivery;
mod dispatcher;
mod message;
mod metrics;
mod worker;

pub use address::{RefusedAddress, check_url};
pub use client::{ClientError, RESERVED_HEADERS};
pub use config::Config;
pub use dispatcher::{Deps, Dispatcher};
