//! The health of a role that uses Redis.

use std::sync::Arc;

use super::Link;
use crate::serve::admin::Health;

/// The combined health of a role and its primary.
pub struct RedisHealth {
    link: Link,
    role: Arc<dyn Health>,
}

impl RedisHealth {
    /// Creates the health of a role that uses the primary of `link`.
    pub fn new(link: Link, role: Arc<dyn Health>) -> Arc<Self> {
        Arc::new(Self { link, role })
    }
}

impl Health for RedisHealth {
    fn live(&self) -> Result<(), String> {
        self.role.live()
    }

    fn ready(&self) -> Result<(), String> {
        self.role.ready()?;
        self.link.primary().ready().map_err(|reason| reason.to_string())
    }
}
