//! `carillon check-config`: checks the configuration.

use crate::args::RoleSettings;
use crate::config::Config;
use crate::output::{Failure, print, print_warnings};

/// Prints that the configuration is valid, or fails with its mistakes.
pub(crate) fn run(args: &RoleSettings) -> Result<(), Failure> {
    let config = Config::load(&args.settings, args.role)?;
    print_warnings(&config.warnings);
    print(&verdict(&config));
    Ok(())
}

fn verdict(config: &Config) -> String {
    let (host, port) = (&config.server.host, config.server.port);
    let apps = match config.apps.as_slice() {
        _ if config.demo => "no apps, so `up` serves the demo app".to_owned(),
        [app] => format!("1 app ({})", app.id),
        apps => {
            let ids: Vec<&str> = apps.iter().map(|app| app.id.as_str()).collect();
            format!("{} apps ({})", apps.len(), ids.join(", "))
        }
    };
    format!("configuration is valid: {apps}, listening on {host} port {port}\n")
}
