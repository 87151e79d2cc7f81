//! The commands that do not serve, one file each.

pub(crate) mod app_new;
pub(crate) mod check_config;
mod credentials;
pub(crate) mod doctor;
pub(crate) mod healthcheck;
pub(crate) mod listen;
pub(crate) mod print_config;
pub(crate) mod trigger;
pub(crate) mod webhooks;
