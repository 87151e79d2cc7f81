//! Runs one scenario against one server, in alternation with the floor, and reports the results.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::figure::{Figure, Measurement, median};
use crate::machine::Machine;
use crate::scenario::Scenario;
use crate::subject::{Subject, Target};
use crate::table::{Table, number};

/// The name of the floor among the subjects.
pub(crate) const FLOOR: &str = "floor";

/// The arguments of a scenario command.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScenarioArgs<S: Args> {
    #[command(flatten)]
    pub(crate) scenario: S,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) options: RunOptions,
}

/// The number of runs and the output.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunOptions {
    /// Runs per subject; reports medians, and for faults the highest count of one run
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: usize,
    /// Skip the floor
    #[arg(long)]
    pub(crate) no_floor: bool,
    /// Write the complete results to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The runs of a scenario against several subjects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rounds {
    pub(crate) title: String,
    pub(crate) scenario: Scenario,
    /// The subjects in the order of the table's columns.
    pub(crate) subjects: Vec<Runs>,
}

/// The runs against one subject. Runs with the same index took place one after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Runs {
    pub(crate) subject: String,
    pub(crate) runs: Vec<Measurement>,
}

/// Runs a scenario and prints the results.
///
/// # Errors
/// Returns an error if a run of the server failed or had faults. All results are reported first.
pub(crate) fn run(scenario: Scenario, target: Target, options: &RunOptions) -> Result<()> {
    let mut rounds = Rounds::new(scenario.clone(), [FLOOR, "server"]);
    let once = |subject: Result<Subject>| Measurement::or_failed(subject.and_then(|subject| scenario.run(&subject)));
    for _ in 0..options.runs.max(1) {
        if scenario.has_floor() && !options.no_floor {
            rounds.subjects[0].runs.push(once(Subject::floor()));
        }
        rounds.subjects[1].runs.push(once(Subject::server("server", target.clone())));
    }
    rounds.subjects.retain(|subject| !subject.runs.is_empty());
    print!("{}", rounds.report());
    if let Some(path) = &options.json {
        write_json(path, &(Machine::detect(), &rounds))?;
    }
    match rounds.problem() {
        Some(problem) => bail!("{problem}"),
        None => Ok(()),
    }
}

impl Rounds {
    pub(crate) fn new(scenario: Scenario, subjects: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let subjects = subjects.into_iter().map(|subject| Runs { subject: subject.into(), runs: Vec::new() }).collect();
        Self { title: scenario.title(), scenario, subjects }
    }

    /// Returns the table for a terminal, followed by the notes of the runs.
    pub(crate) fn report(&self) -> String {
        let runs = self.subjects.iter().map(|subject| subject.runs.len()).max().unwrap_or(0);
        let times =
            if runs > 1 { format!(", medians of {runs} runs, highest counts of faults") } else { String::new() };
        let mut text = format!("{}{times}\n", self.title);
        text += &self.table().plain();
        for subject in &self.subjects {
            for note in subject.runs.iter().flat_map(|run| &run.notes) {
                text += &format!("  {}: {note}\n", subject.subject);
            }
        }
        text
    }

    /// Returns a table with a row per figure and a column per subject. Further subjects have a ratio to the first one.
    pub(crate) fn table(&self) -> Table {
        let mut head = vec!["figure".to_owned(), String::new()];
        for (index, subject) in self.subjects.iter().enumerate() {
            head.push(subject.subject.clone());
            if index > 0 {
                head.push(format!("/ {}", self.subjects[0].subject));
            }
        }
        let mut table = Table::new(2, head);
        for figure in self.figures() {
            let mut cells = vec![figure.title().to_owned(), figure.unit().to_owned()];
            for (index, subject) in self.subjects.iter().enumerate() {
                cells.push(subject.cell(figure));
                if index > 0 {
                    let ratio = subject.ratio(figure, &self.subjects[0]);
                    cells.push(ratio.map_or_else(String::new, |ratio| number(ratio, 2)));
                }
            }
            table.row(cells);
        }
        table
    }

    /// Describes the faults of the first server after the floor, if there are any.
    pub(crate) fn problem(&self) -> Option<String> {
        let server = self.subjects.iter().find(|subject| subject.subject != FLOOR)?;
        let problem = server.problem()?;
        Some(format!("{}, {}: {problem}", self.title, server.subject))
    }

    /// Returns the figures of all runs, sorted.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let runs = self.subjects.iter().flat_map(|subject| &subject.runs);
        let mut figures: Vec<Figure> = runs.flat_map(|run| run.figures.keys().copied()).collect();
        figures.sort_unstable();
        figures.dedup();
        figures
    }
}

impl Runs {
    /// Returns the combined value of a figure, and the number of runs with a value if not all have one. The cell is empty
    /// if the figure does not apply.
    pub(crate) fn cell(&self, figure: Figure) -> String {
        let value = figure.of_all(self.runs.iter().filter_map(|run| run.of(figure)));
        let measured = self.runs.iter().filter(|run| run.of(figure).is_some()).count();
        match value {
            Some(value) => number(value, figure.decimals()) + &self.share(measured),
            None if self.has_failed() => "failed".into(),
            None => String::new(),
        }
    }

    /// Returns the highest count of each fault, and the number of completed runs if some failed.
    pub(crate) fn faults(&self) -> String {
        if self.has_failed() {
            return "failed".into();
        }
        let worst = self.worst();
        let words = if worst.is_empty() { "none".into() } else { worst.join(", ") };
        words + &self.share(self.runs.iter().filter(|run| !run.has_failed()).count())
    }

    /// Describes the runs that failed or had faults: their number, the first error, and the highest count of each fault.
    pub(crate) fn problem(&self) -> Option<String> {
        let bad = self.runs.iter().filter(|run| !run.is_clean()).count();
        let mut failed = self.runs.iter().filter(|run| run.has_failed());
        let failure = failed.find_map(|run| run.notes.first()?.lines().next().map(ToOwned::to_owned));
        let why: Vec<String> = failure.into_iter().chain(self.worst()).collect();
        (bad > 0).then(|| format!("{bad} of {} runs not clean: {}", self.runs.len(), why.join(", ")))
    }

    /// Returns the highest count of each fault in one run, with its title.
    fn worst(&self) -> Vec<String> {
        let mut worst: BTreeMap<Figure, f64> = BTreeMap::new();
        for (figure, value) in self.runs.iter().flat_map(|run| &run.figures) {
            if figure.is_fault() && *value > 0.0 {
                let most = worst.entry(*figure).or_default();
                *most = most.max(*value);
            }
        }
        worst.iter().map(|(figure, value)| format!("{} {}", number(*value, 0), figure.title())).collect()
    }

    /// Returns whether all runs failed.
    fn has_failed(&self) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(Measurement::has_failed)
    }

    /// Returns " (2 of 3)" for a value that only some runs have.
    fn share(&self, measured: usize) -> String {
        let runs = self.runs.len();
        if measured < runs { format!(" ({measured} of {runs})") } else { String::new() }
    }

    /// Returns the median of the ratios between runs with the same index.
    pub(crate) fn ratio(&self, figure: Figure, to: &Self) -> Option<f64> {
        if !figure.is_comparable() {
            return None;
        }
        let pairs = self.runs.iter().zip(&to.runs);
        median(pairs.filter_map(|(run, to)| {
            let to = to.of(figure).filter(|to| *to != 0.0)?;
            Some(run.of(figure)? / to)
        }))
    }
}

/// Writes a value as formatted JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPU per delivery and the number of lost events; `None` for a failed run.
    type Run = Option<(f64, f64)>;

    fn runs(values: &[Run]) -> Runs {
        let run = |value: &Run| {
            let Some((cpu, lost)) = value else { return Measurement::or_failed(Err(anyhow::anyhow!("timeout"))) };
            let mut measurement = Measurement::default();
            measurement.set(Figure::CpuPerDeliveryUs, *cpu);
            measurement.set(Figure::Lost, *lost);
            measurement
        };
        Runs { subject: "server".into(), runs: values.iter().map(run).collect() }
    }

    #[test]
    fn a_cell_shows_losses_and_failures() {
        let cases: [(&[Run], [&str; 3]); 5] = [
            (&[], ["", "", "none"]),
            (&[Some((1.0, 0.0)), Some((3.0, 0.0))], ["2.000", "0", "none"]),
            (&[Some((1.0, 0.0)), Some((2.0, 0.0)), Some((9.0, 5000.0))], ["2.000", "5,000", "5,000 lost"]),
            (&[Some((1.0, 0.0)), None, Some((3.0, 0.0))], ["2.000 (2 of 3)", "0 (2 of 3)", "none (2 of 3)"]),
            (&[None, None], ["failed", "failed", "failed"]),
        ];
        for (values, expected) in cases {
            let runs = runs(values);
            let cells = [runs.cell(Figure::CpuPerDeliveryUs), runs.cell(Figure::Lost), runs.faults()];
            assert_eq!(cells, expected, "{values:?}");
        }
    }

    #[test]
    fn ratios_use_only_pairs_of_completed_runs() {
        let floor = runs(&[Some((1.0, 0.0)), Some((2.0, 0.0)), None]);
        let server = runs(&[None, Some((5.0, 3.0)), Some((9.0, 0.0))]);
        assert_eq!(server.ratio(Figure::CpuPerDeliveryUs, &floor), Some(2.5));
        assert_eq!(server.ratio(Figure::Lost, &floor), None);
    }

    #[test]
    fn only_the_first_server_can_fail_the_command() {
        let scenario = Scenario::Presence(crate::scenario::Presence { members: 2 });
        let mut rounds = Rounds::new(scenario, [FLOOR, "carillon", "other"]);
        let (good, bad) = (Some((1.0, 0.0)), Some((1.0, 7.0)));
        rounds.subjects[1].runs = runs(&[good, good]).runs;
        rounds.subjects[2].runs = runs(&[bad, None]).runs;
        assert_eq!(rounds.problem(), None);
        for (values, expected) in [([good, bad], "7 lost"), ([None, good], "failed: timeout")] {
            rounds.subjects[1].runs = runs(&values).runs;
            let problem = rounds.problem().expect("one run was not clean");
            assert!(problem.contains("carillon: 1 of 2 runs") && problem.ends_with(expected), "{problem}");
        }
    }
}
