//! A strict parser of the text format of metrics.

use std::collections::BTreeSet;

/// The content of `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// `name{labels}` and value of each sample.
    samples: Vec<(String, f64)>,
    /// The names that a `# TYPE` line declares.
    declared: BTreeSet<String>,
}

impl Metrics {
    /// Parses every line.
    ///
    /// # Panics
    /// Panics if a line is neither a comment of the two known kinds nor a sample of a declared metric.
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines() {
            metrics.parse_line(line).unwrap_or_else(|| panic!("not a valid line of metrics: {line:?}"));
        }
        metrics
    }

    /// Returns the declared names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(String::as_str)
    }

    /// Returns the names of all labels.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        let lists = self.samples.iter().filter_map(|(series, _)| Some(series.split_once('{')?.1));
        lists.flat_map(|list| list.split("\",")).filter_map(|pair| Some(pair.split_once("=\"")?.0))
    }

    /// Returns the sum of all series of one name, or the one series of `name{label="value"}`. Returns 0 if there is none.
    pub fn value(&self, series: &str) -> f64 {
        let fits = |sample: &str| sample == series || sample.split('{').next() == Some(series);
        self.samples.iter().filter(|(sample, _)| fits(sample)).map(|(_, value)| value).sum()
    }

    fn parse_line(&mut self, line: &str) -> Option<()> {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ')?;
            return (is_name(name) && !text.is_empty()).then_some(());
        }
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ')?;
            self.declared.insert(name.to_owned());
            return (is_name(name) && matches!(kind, "counter" | "gauge" | "histogram")).then_some(());
        }
        let (series, value) = line.rsplit_once(' ')?;
        let value: f64 = value.parse().ok()?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let is_declared = [Some(name), base].into_iter().flatten().any(|name| self.declared.contains(name));
        let labels_fit = labels.is_empty() || labels.split("\",").all(is_label);
        self.samples.push((series.to_owned(), value));
        (is_declared && labels_fit).then_some(())
    }
}

/// Parses `name="value`. The last one includes its closing quote.
fn is_label(pair: &str) -> bool {
    pair.split_once("=\"").is_some_and(|(name, _)| is_name(name))
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
