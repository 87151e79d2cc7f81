//! `carillon print-config`.

use anyhow::Context;

use crate::args::RoleSettings;
use crate::config::Config;
use crate::output::{Failure, say, warn};

/// Prints what every key is in the end, secrets masked.
pub(crate) fn run(args: &RoleSettings) -> Result<(), Failure> {
    let config = Config::load(&args.settings, args.role)?;
    warn(&config.warnings);
    say(&toml::to_string(&config).context("cannot print the configuration as TOML")?);
    Ok(())
}
