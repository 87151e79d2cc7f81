//! The machine, date, versions and command of a measurement.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The origin of a result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// `YYYY-MM-DD`, in UTC.
    pub(crate) date: String,
    pub(crate) host: String,
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    /// The version of this program.
    pub(crate) version: String,
    /// The command line of this program, without secrets.
    #[serde(default)]
    pub(crate) command: String,
    /// The commit of the current repository, and whether files differ from it; empty outside a repository.
    #[serde(default)]
    pub(crate) commit: String,
    /// The version that `redis-server` prints; empty if it is not installed.
    #[serde(default)]
    pub(crate) redis: String,
}

impl Machine {
    pub(crate) fn detect() -> Self {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let field = |path: &str, label: &str| {
            let text = line(path);
            let line = text.lines().find(|line| line.starts_with(label));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let memory_kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            date: date(now_s / 86_400),
            host: line("/proc/sys/kernel/hostname"),
            kernel: line("/proc/sys/kernel/osrelease"),
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_kib / 1024,
            version: env!("CARGO_PKG_VERSION").into(),
            command: without_secrets(std::env::args()),
            commit: commit(),
            redis: output("redis-server", &["--version"]),
        }
    }

    /// Returns command, commit and versions as a Markdown list. `versions` has the versions of the servers by name.
    pub(crate) fn sources(&self, versions: &[(String, String)]) -> String {
        let own = [("command", format!("`{}`", self.command)), ("commit", self.commit.clone())];
        let own = own.into_iter().chain([("redis-server", self.redis.clone())]);
        let all = own.chain(versions.iter().map(|(name, version)| (name.as_str(), version.clone())));
        all.map(|(name, text)| format!("- {name}: {}\n", if text.is_empty() { "unknown" } else { &text })).collect()
    }
}

/// Joins a command line and replaces the app's secret.
fn without_secrets(words: impl Iterator<Item = String>) -> String {
    let mut without_secrets: Vec<String> = Vec::new();
    for word in words {
        let secret = without_secrets.last().is_some_and(|last| last == "--app-secret");
        without_secrets.push(match word.split_once('=') {
            _ if secret => "***".into(),
            Some(("--app-secret", _)) => "--app-secret=***".into(),
            _ => word,
        });
    }
    without_secrets.join(" ")
}

fn commit() -> String {
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let differs = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    if differs { commit + ", with changes" } else { commit }
}

/// Returns the first line that a program prints; empty if it cannot be run or fails.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// Returns the date of a day, counted from 1970-01-01.
fn date(mut day: u64) -> String {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::{date, output, without_secrets};

    #[test]
    fn days_are_converted_to_dates() {
        for (day, expected) in
            [(0, "1970-01-01"), (59, "1970-03-01"), (789, "1972-02-29"), (11_016, "2000-02-29"), (20_454, "2026-01-01")]
        {
            assert_eq!(date(day), expected);
        }
    }

    #[test]
    fn a_command_line_is_stored_without_secrets() {
        for (words, expected) in [
            ("bench compare --rounds 3", "bench compare --rounds 3"),
            ("bench idle --app-secret hidden --runs 2", "bench idle --app-secret *** --runs 2"),
            ("bench idle --app-secret=hidden", "bench idle --app-secret=***"),
        ] {
            assert_eq!(without_secrets(words.split(' ').map(String::from)), expected);
        }
    }

    #[test]
    fn a_missing_or_failing_program_has_no_output() {
        assert_eq!(output("no-such-program", &[]), "");
        assert_eq!(output("sh", &["-c", "echo words; exit 1"]), "");
        assert_eq!(output("sh", &["-c", "echo ' words '; echo more"]), "words");
    }
}
