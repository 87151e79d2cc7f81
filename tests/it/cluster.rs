//! Gateways and publishers that share nothing but Redis. Source: the design's sections 3 to 6.

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
