//! The commands that serve until they receive a signal: `up`, `gateway` and `publisher`.

mod backbone;
mod banner;
mod certificates;
pub(crate) mod roles;
mod signals;
