//! Env files, with the rules of Laravel's `.env`.

mod grammar;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use shared::config::{ConfigError, Mistake};

use super::Pairs;
use grammar::{Broken, Problem};

/// The maximum size of a file. A `.env` file has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The maximum number of lines with a warning each.
const WARNINGS_MAX: usize = 10;

/// The variables of an env file, and the lines that cannot be read.
#[derive(Debug, Default)]
pub(super) struct EnvFile {
    path: String,
    /// The variables in the order of the file, each once, without those that the environment overrides.
    pub(super) variables: Pairs,
    broken: Vec<Broken>,
}

impl EnvFile {
    /// Reads a file. References like `${NAME}` mean variables of `environment`, or earlier variables of the file.
    ///
    /// # Errors
    /// [`ConfigError::File`].
    pub(super) fn read(path: &Path, environment: &[(String, String)]) -> Result<Self, ConfigError> {
        let cannot_read = |source| ConfigError::File { path: format!("{} (--env-file)", path.display()), source };
        let bytes = read_bytes(path).map_err(cannot_read)?;
        Ok(Self { path: path.display().to_string(), ..Self::parse(&bytes, environment) })
    }

    fn parse(bytes: &[u8], environment: &[(String, String)]) -> Self {
        let mut file = Self::default();
        for entry in grammar::parse(&grammar::decode(bytes)) {
            match entry {
                Ok(entry) if find(environment, &entry.name).is_some() => {}
                Ok(entry) => {
                    let known = |name: &str| find(environment, name).or_else(|| find(&file.variables, name));
                    let value = entry.template.map(|template| template.resolve(known));
                    file.variables.retain(|(name, _)| *name != entry.name);
                    file.variables.extend(value.map(|value| (entry.name, value)));
                }
                Err(broken) => file.broken.push(broken),
            }
        }
        file
    }

    /// Returns the value of a variable. `None` if the file does not set it.
    ///
    /// # Errors
    /// If a line that seems to set it cannot be read.
    pub(super) fn value(&self, name: &str) -> Result<Option<&str>, Mistake> {
        match self.broken.iter().find(|broken| broken.name == name) {
            Some(broken) => Err(self.mistake(broken)),
            None => Ok(find(&self.variables, name)),
        }
    }

    /// Refuses lines that cannot be read and seem to set a variable with this prefix.
    ///
    /// # Errors
    /// One [`Mistake`] for each line.
    pub(super) fn refuse_broken(&self, prefix: &str) -> Result<(), ConfigError> {
        let broken = self.broken.iter().filter(|broken| broken.name.starts_with(prefix));
        let mistakes: Vec<Mistake> = broken.map(|broken| self.mistake(broken)).collect();
        if mistakes.is_empty() { Ok(()) } else { Err(ConfigError::Mistakes(mistakes)) }
    }

    /// Describes the lines that cannot be read, without their values. A line of a private key is described without a
    /// name.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> =
            self.broken.iter().take(WARNINGS_MAX).map(|broken| self.warning(broken)).collect();
        let more = self.broken.len() - warnings.len();
        if more > 0 {
            warnings.push(format!("{}: {more} more lines are ignored, because they cannot be read", self.path));
        }
        warnings
    }

    fn warning(&self, broken: &Broken) -> String {
        let Broken { line, name, problem } = broken;
        let what = if is_usual(name) { format!("{name}: ") } else { String::new() };
        let laravel = match problem {
            Problem::OpenToEnd => "Laravel ignores this line and all lines after it",
            _ => "Laravel refuses a file with such a line",
        };
        format!("line {line} of {} is ignored: {what}{problem}. {laravel}", self.path)
    }

    fn mistake(&self, broken: &Broken) -> Mistake {
        let source = Some(format!("line {} of {}", broken.line, self.path));
        Mistake { source, ..Mistake::new(&broken.name, broken.problem.to_string()) }
    }
}

/// Returns whether a text looks like the name of a variable and not like a part of a secret.
fn is_usual(name: &str) -> bool {
    const LENGTH_MAX: usize = 64;
    let is_usual = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=LENGTH_MAX).contains(&name.len()) && name.bytes().all(is_usual)
}

fn find<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    variables.iter().rfind(|(variable, _)| variable == name).map(|(_, value)| value.as_str())
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
impl EnvFile {
    /// Parses the text of a file named `.env`.
    pub(super) fn of_text(text: &str, environment: &[(String, String)]) -> Self {
        Self { path: ".env".into(), ..Self::parse(text.as_bytes(), environment) }
    }
}

#[cfg(test)]
mod tests;
