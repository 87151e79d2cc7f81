//! The state of the API, which all routes share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use shared::allowance::Allowance;
use shared::app::{App, AppId, Apps};
use shared::cluster::bus::Bus;
use shared::cluster::roster::Roster;
use shared::serve::telemetry::metrics::Registry;
use tokio::sync::Semaphore;

use crate::limits::{APP_BODY_BYTES_MAX, BODY_PERMITS_MAX};
use crate::metrics::Metrics;
use crate::refusal_log::RefusalLog;

/// The dependencies of the API.
pub struct Deps {
    /// The tenants, found by the id in the path of a request.
    pub apps: Apps,
    /// The bus that events are published to.
    pub bus: Arc<dyn Bus>,
    /// The source of members, occupancy and cached events.
    pub roster: Arc<dyn Roster>,
    /// The registry for the metrics of the API.
    pub registry: Registry,
    /// The prefix of all paths, for example `/ws`. Empty for no prefix.
    pub path_prefix: String,
}

/// The HTTP API of all apps.
pub struct Api {
    pub(crate) apps: Apps,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) roster: Arc<dyn Roster>,
    pub(crate) metrics: Metrics,
    pub(crate) path_prefix: String,
    /// The rate limit of each app. The lock is never held across an `.await`.
    pub(crate) allowances: HashMap<AppId, Mutex<Allowance>>,
    /// A permit for every byte of concurrent request bodies, by app.
    pub(crate) body_budgets: HashMap<AppId, Semaphore>,
    pub(crate) refusal_log: RefusalLog,
}

impl Api {
    /// Creates the API. `routes`: the labels of all routes.
    pub(crate) fn with_routes(deps: Deps, routes: impl Iterator<Item = &'static str> + Clone) -> Self {
        let Deps { apps, bus, roster, registry, path_prefix } = deps;
        let metrics = Metrics::new(&registry, &apps, routes);
        let allowances = apps.iter().map(|app| (app.id.clone(), Mutex::default())).collect();
        let body_budgets = apps.iter().map(|app| (app.id.clone(), Semaphore::new(body_budget(app)))).collect();
        let refusal_log = RefusalLog::default();
        Self { apps, bus, roster, metrics, path_prefix, allowances, body_budgets, refusal_log }
    }
}

/// Returns the maximum size of an app's concurrent request bodies, in bytes. One body of the largest size always fits.
fn body_budget(app: &App) -> usize {
    APP_BODY_BYTES_MAX.max(app.limits.request_bytes()).min(BODY_PERMITS_MAX)
}
