//! The page that compares servers.

use super::case::Case;
use super::server::Group;
use crate::figure::Figure;
use crate::machine::Machine;
use crate::run::{Rounds, Runs};
use crate::table::{Table, number};

/// What was compared, where and when.
pub(super) fn head(machine: &Machine, versions: &[(String, String)], rounds: usize) -> String {
    let mut text = format!(
        "# Measured on {}\n\n{} with {} cores that servers and load share, {} MiB of memory, Linux {}. \
         Medians of {rounds} rounds, in each of which every server is started afresh; CPU is of all processes of a \
         server, Redis included. The floor only writes the same bytes from one epoll loop.\n\n",
        machine.date, machine.processor, machine.cores, machine.memory_mib, machine.kernel
    );
    for (name, version) in versions {
        text += &format!("- {name}: {version}\n");
    }
    text
}

/// The table of one group.
pub(super) fn section(group: Group, cases: &[(&Case, Rounds)]) -> String {
    let mut columns: Vec<String> = Vec::new();
    for (_, rounds) in cases {
        for subject in &rounds.subjects {
            if !columns.contains(&subject.subject) {
                columns.push(subject.subject.clone());
            }
        }
    }
    // The floor always comes first, even where the first scenario has none.
    columns.sort_by_key(|column| column != "floor");
    let base = columns.iter().find(|column| *column != "floor").cloned().unwrap_or_default();
    let mut head = vec![String::from("scenario"), "figure".into()];
    for column in &columns {
        head.push(column.clone());
        head.extend(ratio_to(column, &base).map(|to| format!("/ {to}")));
    }
    let mut table = Table::new(2, head);
    let mut notes = String::new();
    for (case, rounds) in cases {
        for (row, figure) in case.figures.iter().enumerate() {
            let unit = figure.unit();
            let title = if unit.is_empty() { figure.title().to_owned() } else { format!("{}, {unit}", figure.title()) };
            let mut cells = vec![if row == 0 { case.name.to_owned() } else { String::new() }, title];
            for column in &columns {
                cells.extend(cells_of(rounds, column, &base, *figure));
            }
            table.row(cells);
        }
        notes += &notes_of(case, rounds);
    }
    let cases: String =
        cases.iter().map(|(case, rounds)| format!("- {}: {}\n", case.name, without_name(&rounds.title))).collect();
    let notes = if notes.is_empty() { notes } else { format!("\n{notes}") };
    format!("\n## {}\n\n{}\n{cases}{notes}", group.title(), table.markdown())
}

/// What a column is compared to: the base with the floor, the others with the base.
fn ratio_to<'a>(column: &str, base: &'a str) -> Option<&'a str> {
    match column {
        "floor" => None,
        column if column == base => Some("floor"),
        _ => Some(base),
    }
}

/// The value, and the ratio where the column has one.
fn cells_of(rounds: &Rounds, column: &str, base: &str, figure: Figure) -> Vec<String> {
    let find = |name: &str| rounds.subjects.iter().find(|subject| subject.subject == name);
    let runs = find(column);
    let mut cells = vec![runs.map_or_else(String::new, |runs: &Runs| runs.cell(figure))];
    if let Some(to) = ratio_to(column, base) {
        let ratio = runs.zip(find(to)).and_then(|(runs, to)| runs.ratio(figure, to));
        cells.push(ratio.map_or_else(String::new, |ratio| number(ratio, 2)));
    }
    cells
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

/// A title without the scenario's name before the colon.
fn without_name(title: &str) -> &str {
    title.split_once(": ").map_or(title, |(_, rest)| rest)
}
