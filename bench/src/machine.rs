//! On what machine, when, from what and by what command something was measured.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What stands beside every result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// `YYYY-MM-DD`, in UTC.
    pub(crate) date: String,
    pub(crate) host: String,
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    /// This program's.
    pub(crate) version: String,
    /// What this program was told to do, without secrets.
    #[serde(default)]
    pub(crate) command: String,
    /// Of the repository in which it was started, and whether files differed from it; empty outside of one.
    #[serde(default)]
    pub(crate) commit: String,
    /// What redis-server says of itself; empty where there is none.
    #[serde(default)]
    pub(crate) redis: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
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
            command: spoken(std::env::args()),
            commit: commit(),
            redis: output("redis-server", &["--version"]),
        }
    }

    /// Where figures come from, as a list for the head of a page. `versions`: of the servers, by name.
    pub(crate) fn sources(&self, versions: &[(String, String)]) -> String {
        let own = [("command", format!("`{}`", self.command)), ("commit", self.commit.clone())];
        let own = own.into_iter().chain([("redis-server", self.redis.clone())]);
        let all = own.chain(versions.iter().map(|(name, version)| (name.as_str(), version.clone())));
        all.map(|(name, text)| format!("- {name}: {}\n", if text.is_empty() { "unknown" } else { &text })).collect()
    }
}

/// A command line, with the app's secret left out: results are kept for all to read.
fn spoken(words: impl Iterator<Item = String>) -> String {
    let mut spoken: Vec<String> = Vec::new();
    for word in words {
        let secret = spoken.last().is_some_and(|last| last == "--app-secret");
        spoken.push(match word.split_once('=') {
            _ if secret => "***".into(),
            Some(("--app-secret", _)) => "--app-secret=***".into(),
            _ => word,
        });
    }
    spoken.join(" ")
}

fn commit() -> String {
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let differs = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    if differs { commit + ", with changes" } else { commit }
}

/// The first line that a program prints; empty if it cannot be run or fails.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// The date of a day, counted from 1970-01-01.
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
    use super::{date, output, spoken};

    #[test]
    fn days_have_dates() {
        for (day, expected) in
            [(0, "1970-01-01"), (59, "1970-03-01"), (789, "1972-02-29"), (11_016, "2000-02-29"), (20_454, "2026-01-01")]
        {
            assert_eq!(date(day), expected);
        }
    }

    #[test]
    fn a_command_line_is_kept_without_secrets() {
        for (words, expected) in [
            ("bench compare --rounds 3", "bench compare --rounds 3"),
            ("bench idle --app-secret hidden --runs 2", "bench idle --app-secret *** --runs 2"),
            ("bench idle --app-secret=hidden", "bench idle --app-secret=***"),
        ] {
            assert_eq!(spoken(words.split(' ').map(String::from)), expected);
        }
    }

    #[test]
    fn a_program_that_is_missing_or_fails_says_nothing() {
        assert_eq!(output("no-such-program", &[]), "");
        assert_eq!(output("sh", &["-c", "echo words; exit 1"]), "");
        assert_eq!(output("sh", &["-c", "echo ' words '; echo more"]), "words");
    }
}
