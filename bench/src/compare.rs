//! `bench compare`: runs the same scenarios against several servers in alternation and writes one page of results.

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

/// The servers to measure and the folder for the results.
#[derive(Args, Clone, Debug)]
pub(crate) struct Selection {
    /// File that lists the servers and how to start them
    #[arg(long, value_name = "FILE", default_value = "bench/servers.toml")]
    pub(crate) config: PathBuf,
    /// Names of servers, in the order of the columns; others are compared to the first server of their group
    #[arg(long, value_delimiter = ',')]
    pub(crate) servers: Vec<String>,
    /// Folder for the results, without results of an earlier run; default: bench/runs/DATE-HOST, then DATE-HOST-2 and so on
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
}

/// Runs the scenarios against a list of servers
#[derive(Args, Clone, Debug)]
pub(crate) struct Compare {
    #[command(flatten)]
    selection: Selection,
    /// Names of scenarios; default: all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Runs of each scenario per server; reports medians, and for faults the highest count of one run
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Run a tenth of the events and sockets, as a first check
    #[arg(long)]
    quick: bool,
}

/// The complete results as JSON.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    versions: &'a [(String, String)],
    rounds: &'a [(String, Vec<Rounds>)],
}

impl Compare {
    /// # Errors
    /// Returns an error if a run of the first server of a group failed or had faults. All results are written first.
    /// Faults of the other servers are results.
    pub(crate) fn run(self) -> Result<()> {
        let servers = self.selection.servers()?;
        let machine = Machine::detect();
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
            // Written after each scenario, which keeps earlier results if a later scenario fails.
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
        eprintln!("results are in {}", folder.display());
        let rounds = done.iter().flat_map(|(_, rounds)| rounds);
        let problems: Vec<String> = rounds.filter_map(|(_, rounds)| rounds.problem()).collect();
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    }
}

impl Selection {
    pub(crate) fn servers(&self) -> Result<Vec<Server>> {
        Server::read(&self.config, &self.servers)
    }

    /// Returns the folder for the results and creates it. A run never overwrites results of the same `kind`.
    ///
    /// # Errors
    /// Returns an error if the selected folder already has results of this kind.
    pub(crate) fn folder(&self, machine: &Machine, kind: &str) -> Result<PathBuf> {
        let folder = match &self.output {
            Some(folder) => {
                ensure!(
                    !has_results(folder, kind),
                    "{} already has results: select another folder, or remove {kind}.json and {kind}.md",
                    folder.display()
                );
                folder.clone()
            }
            None => unused(&format!("bench/runs/{}-{}", machine.date, machine.host), kind),
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }
}

/// Returns the first folder of this name without results of this kind, with -2, -3 and so on appended if needed.
fn unused(name: &str, kind: &str) -> PathBuf {
    let mut folder = PathBuf::from(name);
    let mut number = 2;
    while has_results(&folder, kind) {
        folder = PathBuf::from(format!("{name}-{number}"));
        number += 1;
    }
    folder
}

/// Returns whether the folder has a result file of this kind.
fn has_results(folder: &Path, kind: &str) -> bool {
    ["json", "md"].iter().any(|ending| folder.join(format!("{kind}.{ending}")).exists())
}

/// Runs a scenario against every server once per round. With `with_floor`, each round starts with the floor.
pub(crate) fn alternate(scenario: &Scenario, servers: &[&Server], with_floor: bool, count: usize) -> Rounds {
    let names = std::iter::once(FLOOR).chain(servers.iter().map(|server| server.name.as_str()));
    let mut rounds = Rounds::new(scenario.clone(), names);
    for _ in 0..count.max(1) {
        if with_floor {
            let floor = Subject::floor().and_then(|floor| scenario.run(&floor));
            rounds.subjects[0].runs.push(Measurement::or_failed(floor));
        }
        for (server, column) in servers.iter().zip(&mut rounds.subjects[1..]) {
            column.runs.push(Measurement::or_failed(run_once(scenario, server)));
        }
    }
    rounds.subjects.retain(|subject| !subject.runs.is_empty());
    rounds
}

/// Starts a new process of a server, runs a scenario against it and stops it.
pub(crate) fn run_once(scenario: &Scenario, server: &Server) -> Result<Measurement> {
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
        let name = name.to_str().context("the path is UTF-8")?;
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
        assert!(selection(numbered(2)).folder(&Machine::detect(), "compare").is_err());
        assert!(selection(numbered(2)).folder(&Machine::detect(), "growth").is_ok());
        fs::remove_dir_all(&base)?;
        Ok(())
    }
}
