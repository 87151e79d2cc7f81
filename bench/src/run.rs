//! One scenario against one server, in alternation with the floor.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::figure::{Figure, Measurement, median};
use crate::machine::Machine;
use crate::scenario::Scenario;
use crate::subject::{Subject, Target};
use crate::table::{Table, number};

/// A scenario against a server that is running.
#[derive(Args, Clone, Debug)]
pub(crate) struct Against<S: Args> {
    #[command(flatten)]
    pub(crate) scenario: S,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) how: How,
}

/// How often, and where to.
#[derive(Args, Clone, Debug)]
pub(crate) struct How {
    /// Runs of each side; medians are reported
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: usize,
    /// Leave out the floor
    #[arg(long)]
    pub(crate) no_floor: bool,
    /// Where to write everything that was measured
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Every run of a scenario against some subjects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rounds {
    pub(crate) title: String,
    pub(crate) scenario: Scenario,
    /// In the order in which tables show them.
    pub(crate) subjects: Vec<Runs>,
}

/// The runs against one subject; those of the same number were made one after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Runs {
    pub(crate) subject: String,
    pub(crate) runs: Vec<Measurement>,
}

/// Runs a scenario and reports.
pub(crate) fn run(scenario: Scenario, target: Target, how: &How) -> Result<()> {
    let mut rounds = Rounds::new(scenario.clone(), ["floor", "server"]);
    for _ in 0..how.runs.max(1) {
        if scenario.has_floor() && !how.no_floor {
            rounds.subjects[0].runs.push(scenario.run(&Subject::floor()?)?);
        }
        rounds.subjects[1].runs.push(scenario.run(&Subject::server("server", target.clone())?)?);
    }
    rounds.subjects.retain(|subject| !subject.runs.is_empty());
    print!("{}", rounds.report());
    if let Some(path) = &how.json {
        write_json(path, &(Machine::look(), &rounds))?;
    }
    Ok(())
}

impl Rounds {
    pub(crate) fn new(scenario: Scenario, subjects: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let subjects = subjects.into_iter().map(|subject| Runs { subject: subject.into(), runs: Vec::new() }).collect();
        Self { title: scenario.title(), scenario, subjects }
    }

    /// A table for a terminal, with ratios to the first subject.
    pub(crate) fn report(&self) -> String {
        let runs = self.subjects.iter().map(|subject| subject.runs.len()).max().unwrap_or(0);
        let times = if runs > 1 { format!(", median of {runs} runs") } else { String::new() };
        let mut text = format!("{}{times}\n", self.title);
        text += &self.table().plain();
        for subject in &self.subjects {
            for note in subject.runs.iter().flat_map(|run| &run.notes) {
                text += &format!("  {}: {note}\n", subject.subject);
            }
        }
        text
    }

    /// One row for each figure, one column for each subject; beyond the first, a ratio to it.
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
                cells.push(subject.median(figure).map_or_else(String::new, |value| number(value, figure.decimals())));
                if index > 0 {
                    let ratio = subject.ratio(figure, &self.subjects[0]);
                    cells.push(ratio.map_or_else(String::new, |ratio| number(ratio, 2)));
                }
            }
            table.row(cells);
        }
        table
    }

    /// All figures that any run has, in their order.
    fn figures(&self) -> Vec<Figure> {
        let runs = self.subjects.iter().flat_map(|subject| &subject.runs);
        let mut figures: Vec<Figure> = runs.flat_map(|run| run.figures.keys().copied()).collect();
        figures.sort_unstable();
        figures.dedup();
        figures
    }
}

impl Runs {
    /// The middle of what all runs gave.
    pub(crate) fn median(&self, figure: Figure) -> Option<f64> {
        median(self.runs.iter().filter_map(|run| run.of(figure)))
    }

    /// The middle of the ratios of runs that were made one after the other.
    pub(crate) fn ratio(&self, figure: Figure, to: &Self) -> Option<f64> {
        let pairs = self.runs.iter().zip(&to.runs);
        median(pairs.filter_map(|(run, to)| {
            let to = to.of(figure).filter(|to| *to != 0.0)?;
            Some(run.of(figure)? / to)
        }))
    }
}

/// Writes something for other programs to read.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
