//! `carillon print-config`.

use anyhow::Context;

use crate::args::Settings;
use crate::config::{Config, Role};
use crate::{Failure, say, warn};

/// Prints what every key is in the end, secrets masked.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let config = Config::load(settings, Role::Up)?;
    warn(&config.warnings);
    say(&toml::to_string(&config).context("cannot print the configuration as TOML")?);
    Ok(())
}
