//! The Markdown page of `bench compare`.

use super::case::Case;
use super::server::Group;
use crate::machine::Machine;
use crate::run::{FLOOR, Rounds, Runs};
use crate::table::{Table, number};

/// Returns the head of the page: date, machine, method and versions.
pub(super) fn head(machine: &Machine, versions: &[(String, String)], rounds: usize) -> String {
    let text = format!(
        "# Measured on {}\n\n{} with {} cores that servers and load generator share, {} MiB of memory, Linux {}. \
         Medians of {rounds} rounds; each round starts every server again. Faults are the highest count of one \
         round. \"(2 of 3)\" marks a result that not every round has. CPU is the sum over all processes of a server, \
         Redis included. The floor writes the same bytes from one epoll loop, without checks or limits.\n\n",
        machine.date, machine.processor, machine.cores, machine.memory_mib, machine.kernel
    );
    text + &machine.sources(versions)
}

/// Returns the section of one group with its table.
pub(super) fn section(group: Group, cases: &[(&Case, Rounds)]) -> String {
    let columns = Column::all(cases.iter().map(|(_, rounds)| rounds));
    let mut head = vec![String::from("scenario"), "figure".into()];
    for column in &columns {
        head.push(column.subject.clone());
        head.extend(column.ratios_to.iter().map(|to| format!("/ {to}")));
    }
    let mut table = Table::new(2, head);
    let mut notes = String::new();
    for (case, rounds) in cases {
        for cells in rows(case, rounds, &columns) {
            table.row(cells);
        }
        notes += &notes_of(case, rounds);
    }
    let cases: String =
        cases.iter().map(|(case, rounds)| format!("- {}: {}\n", case.name, without_name(&rounds.title))).collect();
    let notes = if notes.is_empty() { notes } else { format!("\n{notes}") };
    format!("\n## {}\n\n{}\n{cases}{notes}", group.title(), table.markdown())
}

/// A server or the floor, and the subjects that its figures are divided by.
struct Column {
    subject: String,
    ratios_to: Vec<String>,
}

impl Column {
    /// Returns the columns, the floor first. The first server is compared to the floor. The others are compared to the
    /// first server and to the floor.
    fn all<'a>(cases: impl Iterator<Item = &'a Rounds>) -> Vec<Self> {
        let mut subjects: Vec<String> = Vec::new();
        for subject in cases.flat_map(|rounds| &rounds.subjects) {
            if !subjects.contains(&subject.subject) {
                subjects.push(subject.subject.clone());
            }
        }
        subjects.sort_by_key(|subject| subject != FLOOR);
        let floor = subjects.iter().find(|subject| *subject == FLOOR).cloned();
        let base = subjects.iter().find(|subject| *subject != FLOOR).cloned();
        let ratios_to = |subject: &String| {
            let others = base.iter().chain(&floor).filter(|to| *to != subject && subject != FLOOR);
            others.cloned().collect()
        };
        subjects.iter().map(|subject| Self { subject: subject.clone(), ratios_to: ratios_to(subject) }).collect()
    }
}

/// Returns the rows of a case: its figures, then one row of faults.
fn rows(case: &Case, rounds: &Rounds, columns: &[Column]) -> Vec<Vec<String>> {
    let find = |name: &str| rounds.subjects.iter().find(|subject| subject.subject == name);
    let measured = rounds.figures();
    let mut rows = Vec::new();
    // If all runs failed, every row shows the failure.
    for figure in case.figures.iter().filter(|figure| measured.is_empty() || measured.contains(figure)) {
        let unit = figure.unit();
        let title = if unit.is_empty() { figure.title().to_owned() } else { format!("{}, {unit}", figure.title()) };
        let mut cells = vec![String::new(), title];
        for column in columns {
            let runs = find(&column.subject);
            cells.push(runs.map_or_else(String::new, |runs| runs.cell(*figure)));
            for to in &column.ratios_to {
                let ratio = runs.zip(find(to)).and_then(|(runs, to)| runs.ratio(*figure, to));
                cells.push(ratio.map_or_else(String::new, |ratio| number(ratio, 2)));
            }
        }
        rows.push(cells);
    }
    let faults: Vec<&str> = measured.iter().filter(|figure| figure.is_fault()).map(|figure| figure.title()).collect();
    if !faults.is_empty() {
        let mut cells = vec![String::new(), faults.join(", ")];
        for column in columns {
            cells.push(find(&column.subject).map_or_else(String::new, Runs::faults));
            cells.resize(cells.len() + column.ratios_to.len(), String::new());
        }
        rows.push(cells);
    }
    if let Some(first) = rows.first_mut() {
        first[0] = case.name.into();
    }
    rows
}

fn notes_of(case: &Case, rounds: &Rounds) -> String {
    let mut notes: Vec<String> = Vec::new();
    for subject in &rounds.subjects {
        for note in subject.runs.iter().flat_map(|run| &run.notes) {
            let line = format!("- {}, {}: {}\n", case.name, subject.subject, note.lines().next().unwrap_or_default());
            if !notes.contains(&line) {
                notes.push(line);
            }
        }
    }
    notes.concat()
}

/// Removes the scenario's name before the colon.
fn without_name(title: &str) -> &str {
    title.split_once(": ").map_or(title, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Figure, Measurement};

    fn clean(cpu: f64) -> Measurement {
        let mut measurement = Measurement::default();
        for (figure, value) in [(Figure::CpuPerDeliveryUs, cpu), (Figure::OwnCpuRatio, 0.5), (Figure::Lost, 0.0)] {
            measurement.set(figure, value);
        }
        measurement.set(Figure::Refused, 0.0);
        measurement
    }

    #[test]
    fn a_section_shows_ratios_to_the_first_server_and_to_the_floor_and_faults() {
        let cases = Case::all(10);
        let case = cases.iter().find(|case| case.name == "fanout-1000").expect("the case exists");
        let mut rounds = Rounds::new(case.scenario.clone(), [FLOOR, "carillon", "other"]);
        for (subject, cpu) in rounds.subjects.iter_mut().zip([1.0, 2.0, 6.0]) {
            subject.runs = vec![clean(cpu); 3];
        }
        rounds.subjects[2].runs[1].set(Figure::Lost, 5000.0);
        rounds.subjects[2].runs[2] = Measurement::or_failed(Err(anyhow::anyhow!("timeout")));
        let page = section(Group::OneNode, &[(case, rounds)]);
        let lines: Vec<String> =
            page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for expected in [
            "| scenario | figure | floor | carillon | / floor | other | / carillon | / floor |",
            "| fanout-1000 | CPU per delivery, us | 1.000 | 2.000 | 2.00 | 6.000 (2 of 3) | 3.00 | 6.00 |",
            "| | CPU of the generator relative to the server's | 0.50 | 0.50 | | 0.50 (2 of 3) | | |",
            "| | lost, refused | none | none | | 5,000 lost (2 of 3) | | |",
            "- fanout-1000, other: failed: timeout",
        ] {
            assert!(lines.iter().any(|line| line == expected), "no {expected} in\n{page}");
        }
        assert!(!page.contains("latency"), "the page shows a figure that no run has:\n{page}");
    }
}
