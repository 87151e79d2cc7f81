//! The capacity of a gateway.

pub(crate) mod addresses;
pub(crate) mod quota;
