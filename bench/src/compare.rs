//! Several servers through the same scenarios, in alternation, and one page with what came out.

mod case;
mod launch;
mod server;
mod summary;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::figure::Measurement;
use crate::machine::Machine;
use crate::run::{FLOOR, Rounds, write_json};
use crate::scenario::Scenario;
use crate::subject::Subject;

use case::Case;

pub(crate) use launch::Launched;
pub(crate) use server::{Group, Server};

/// Which servers, and where the results go.
#[derive(Args, Clone, Debug)]
pub(crate) struct Selection {
    /// File that says what servers there are and how they are started
    #[arg(long, value_name = "FILE", default_value = "bench/servers.toml")]
    pub(crate) config: PathBuf,
    /// Names of servers, in the order of the columns; the first of a group is what the others are compared to
    #[arg(long, value_delimiter = ',')]
    pub(crate) servers: Vec<String>,
    /// Folder for the results, which has none yet; default: bench/runs/DATE-HOST, then DATE-HOST-2 and so on
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
}

/// Runs the scenarios against a list of servers
#[derive(Args, Clone, Debug)]
pub(crate) struct Compare {
    #[command(flatten)]
    selection: Selection,
    /// Scenarios, by name; default: all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Times that each server runs each scenario; medians are reported, and of faults the most in one run
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Run a tenth of everything, to see that it works
    #[arg(long)]
    quick: bool,
}

/// Everything that was measured, for other programs.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    versions: &'a [(String, String)],
    rounds: &'a [(String, Vec<Rounds>)],
}

impl Compare {
    /// # Errors
    /// Returns an error if a run of the first server of a group failed or was not clean, after everything has been reported. What goes
    /// wrong with the others is a result.
    pub(crate) fn run(self) -> Result<()> {
        let servers = self.selection.servers()?;
        let machine = Machine::look();
        let folder = self.selection.folder(&machine, "compare")?;
        let versions: Vec<(String, String)> =
            servers.iter().map(|server| (server.name.clone(), server.version())).collect();
        let mut cases = Case::all(if self.quick { 10 } else { 1 });
        for name in &self.only {
            let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
            ensure!(names.contains(&name.as_str()), "no scenario {name}; there are {}", names.join(", "));
        }
        cases.retain(|case| self.only.is_empty() || self.only.iter().any(|name| name == case.name));

        let groups = [Group::OneNode, Group::Cluster];
        let mut done: Vec<(Group, Vec<(&Case, Rounds)>)> = groups.map(|group| (group, Vec::new())).into();
        for case in &cases {
            for (group, rounds) in &mut done {
                let members: Vec<&Server> = servers.iter().filter(|server| server.group == *group).collect();
                if case.is_for(*group) && !members.is_empty() {
                    rounds.push((case, alternate(&case.scenario, &members, case.scenario.has_floor(), self.rounds)));
                    eprint!("{}", rounds.last().map(|(_, rounds)| rounds.report()).unwrap_or_default());
                }
            }
            // After each scenario: what has been measured survives whatever comes.
            let mut page = summary::head(&machine, &versions, self.rounds);
            for (group, rounds) in done.iter().filter(|(_, rounds)| !rounds.is_empty()) {
                page += &summary::section(*group, rounds);
            }
            fs::write(folder.join("compare.md"), page)?;
            let rounds: Vec<(String, Vec<Rounds>)> = done
                .iter()
                .map(|(group, rounds)| {
                    (group.title().to_owned(), rounds.iter().map(|(_, rounds)| rounds.clone()).collect())
                })
                .collect();
            let report = Report { machine: &machine, versions: &versions, rounds: &rounds };
            write_json(&folder.join("compare.json"), &report)?;
        }
        print!("{}", fs::read_to_string(folder.join("compare.md"))?);
        eprintln!("written to {}", folder.display());
        let rounds = done.iter().flat_map(|(_, rounds)| rounds);
        let trouble: Vec<String> = rounds.filter_map(|(_, rounds)| rounds.trouble()).collect();
        ensure!(trouble.is_empty(), "{}", trouble.join("\n"));
        Ok(())
    }
}

impl Selection {
    pub(crate) fn servers(&self) -> Result<Vec<Server>> {
        Server::read(&self.config, &self.servers)
    }

    /// The folder for results, which is made. It has none of this `kind` yet: what was measured is never overwritten.
    ///
    /// # Errors
    /// Returns an error if the folder that was asked for has some.
    pub(crate) fn folder(&self, machine: &Machine, kind: &str) -> Result<PathBuf> {
        let folder = match &self.output {
            Some(folder) => {
                ensure!(
                    !has_results(folder, kind),
                    "{} has results of an earlier run: name another folder, or remove {kind}.json and {kind}.md",
                    folder.display()
                );
                folder.clone()
            }
            None => unused(&format!("bench/runs/{}-{}", machine.date, machine.host), kind),
        };
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }
}

/// The first folder of this name, or with -2, -3 and so on after it, that has no results of this kind.
fn unused(name: &str, kind: &str) -> PathBuf {
    let mut folder = PathBuf::from(name);
    let mut number = 2;
    while has_results(&folder, kind) {
        folder = PathBuf::from(format!("{name}-{number}"));
        number += 1;
    }
    folder
}

/// Whether a run has got as far as to write something.
fn has_results(folder: &Path, kind: &str) -> bool {
    ["json", "md"].iter().any(|ending| folder.join(format!("{kind}.{ending}")).exists())
}

/// Every server once in each round, and before them the floor, if it is wanted.
pub(crate) fn alternate(scenario: &Scenario, servers: &[&Server], with_floor: bool, count: usize) -> Rounds {
    let names = std::iter::once(FLOOR).chain(servers.iter().map(|server| server.name.as_str()));
    let mut rounds = Rounds::new(scenario.clone(), names);
    for _ in 0..count.max(1) {
        if with_floor {
            let floor = Subject::floor().and_then(|floor| scenario.run(&floor));
            rounds.subjects[0].runs.push(Measurement::or_failed(floor));
        }
        for (server, column) in servers.iter().zip(&mut rounds.subjects[1..]) {
            column.runs.push(Measurement::or_failed(once(scenario, server)));
        }
    }
    rounds.subjects.retain(|subject| !subject.runs.is_empty());
    rounds
}

/// Starts a server afresh, runs a scenario, and ends it.
pub(crate) fn once(scenario: &Scenario, server: &Server) -> Result<Measurement> {
    let launched = Launched::start(server)?;
    let measurement = scenario.run(&launched.subject);
    launched.stop()?;
    measurement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_never_overwritten() -> Result<()> {
        let base = std::env::temp_dir().join(format!("bench-folders-{}", std::process::id()));
        let name = base.join("run");
        let name = name.to_str().context("a readable path")?;
        let numbered = |number: usize| PathBuf::from(format!("{name}-{number}"));
        assert_eq!(unused(name, "compare"), PathBuf::from(name));
        for (folder, file) in [(PathBuf::from(name), "compare.json"), (numbered(2), "compare.md")] {
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(file), "")?;
        }
        assert_eq!(unused(name, "compare"), numbered(3));
        assert_eq!(unused(name, "growth"), PathBuf::from(name));
        let selection =
            |output: PathBuf| Selection { config: PathBuf::new(), servers: Vec::new(), output: Some(output) };
        assert!(selection(numbered(2)).folder(&Machine::look(), "compare").is_err());
        assert!(selection(numbered(2)).folder(&Machine::look(), "growth").is_ok());
        fs::remove_dir_all(&base)?;
        Ok(())
    }
}
