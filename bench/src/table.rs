//! Tables in two formats: aligned text and Markdown.

/// A table with a head and rows of cells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// The number of text columns at the start, which are left-aligned. The other columns are numbers.
    texts: usize,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(texts: usize, head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { texts, head: head.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.head.len(), String::new());
        self.rows.push(cells);
    }

    /// Formats the table for a terminal.
    pub(crate) fn plain(&self) -> String {
        self.lines(|cells| format!("  {}\n", cells.join("  ").trim_end()), None)
    }

    /// Formats the table as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let rule =
            |width: usize, text: bool| if text { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) };
        self.lines(|cells| format!("| {} |\n", cells.join(" | ")), Some(rule))
    }

    fn lines(&self, line: impl Fn(Vec<String>) -> String, rule: Option<fn(usize, bool) -> String>) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| all().map(|cells| cells[column].chars().count()).max().unwrap_or(0).max(3))
            .collect();
        let padded = |cells: &Vec<String>| {
            let cells = cells.iter().zip(&widths).enumerate();
            cells
                .map(|(column, (cell, width))| match column {
                    text if text < self.texts => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect()
        };
        let mut text = line(padded(&self.head));
        if let Some(rule) = rule {
            text += &line(widths.iter().enumerate().map(|(column, width)| rule(*width, column < self.texts)).collect());
        }
        for cells in &self.rows {
            text += &line(padded(cells));
        }
        text
    }
}

/// Formats a number with commas between groups of three digits.
pub(crate) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) { "-" } else { "" };
    format!("{sign}{grouped}{fraction}")
}

#[cfg(test)]
mod tests;
