//! The commands that serve until they are stopped: `up`, `gateway` and `publisher`.

mod backbone;
mod banner;
mod certificates;
pub(crate) mod roles;
mod signals;
