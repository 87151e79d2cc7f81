//! `carillon print-config`: prints the configuration.

use anyhow::Context;

use crate::args::RoleSettings;
use crate::config::Config;
use crate::output::{Failure, print, print_warnings};

/// Prints the value of every key, with masked secrets.
pub(crate) fn run(args: &RoleSettings) -> Result<(), Failure> {
    let config = Config::load(&args.settings, args.role)?;
    print_warnings(&config.warnings);
    print(&toml::to_string(&config).context("cannot print the configuration as TOML")?);
    Ok(())
}
