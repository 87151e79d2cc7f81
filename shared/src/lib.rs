//! The library that the gateway and the publisher share.
//!
//! - The ground: [`protocol`] and [`auth`] are pure (no IO, no clock, no async); [`app`], [`config`] and [`secret`] hold
//!   what operators configure.
//! - [`serve`]: what every role needs to serve HTTP and to be observed.
//! - [`cluster`]: the contracts through which nodes exchange events and state, and their Redis and in-memory forms.
//!
//! Imports point up this list: [`cluster`] may use [`serve`] and the ground, never the other way around.

pub mod allowance;
pub mod app;
pub mod auth;
pub mod cluster;
pub mod config;
pub mod excerpt;
mod fnv;
pub mod json;
pub(crate) mod limits;
pub mod protocol;
pub mod secret;
pub mod serve;
