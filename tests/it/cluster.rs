//! Clusters of gateways and publishers that share a Redis.

mod counts;
mod drain;
mod events;
mod fallback;
mod faults;
mod metric_names;
mod presence;
mod quota;
mod readiness;
mod redis_forms;
mod refusals;
mod refusing;
mod untrusted;
mod users;
mod waiting;
mod webhooks;
