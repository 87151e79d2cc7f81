//! Env files, as Laravel and Docker write them.

use std::fs;
use std::path::Path;

use shared::config::{ConfigError, Mistake};

use super::Pairs;

/// Names that this program takes from an env file start with one of these.
const OURS: [&str; 3] = [shared::config::ENV_PREFIX, "REVERB_", "PUSHER_"];

/// Reads the variables of an env file, in their order.
///
/// The file is the application's: a line that cannot be read is an error only where it holds a variable of ours.
///
/// # Errors
/// [`ConfigError`] that names the file and the variable, never a value.
pub(super) fn read(path: &Path) -> Result<Pairs, ConfigError> {
    let cannot_read = |source| ConfigError::File { path: format!("{} (--env-file)", path.display()), source };
    let text = fs::read_to_string(path).map_err(cannot_read)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut variables, mut all_read) = (Pairs::new(), true);
    for line in dotenvy::from_read_iter(text.as_bytes()) {
        match line {
            Ok(variable) => variables.push(variable),
            Err(_) => all_read = false,
        }
    }
    // The parser does not say where it stopped, and an open quote swallows the lines after it.
    let lost = text.lines().filter_map(our_name).find(|name| !variables.iter().any(|(read, _)| read == name));
    match lost {
        Some(name) if !all_read => {
            let complaint = "expected NAME=value, with quotes around values that hold spaces";
            Err(Mistake { source: Some(path.display().to_string()), ..Mistake::new(name, complaint) }.into())
        }
        _ => Ok(variables),
    }
}

fn our_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let name = line.split(|character: char| !character.is_ascii_alphanumeric() && character != '_').next()?;
    OURS.iter().any(|prefix| name.starts_with(prefix)).then_some(name)
}
