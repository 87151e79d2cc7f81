//! The layers of each crate: an import never points to a higher layer, and no imports form a circle.

use std::collections::BTreeSet;
use std::fs;

use serde::Deserialize;
use tests::command::workspace;

use super::files::rust_below;
use super::graph::{Graph, display, is_ancestor};
use super::imports::Path;

const LIST: &str = "tests/it/tidy/layers.toml";

/// The crates that are split into layers, with the file that is the root of their modules.
const CRATES: [(&str, &str); 7] = [
    ("shared", "lib"),
    ("gateway", "lib"),
    ("publisher", "lib"),
    ("webhooks", "lib"),
    ("client", "lib"),
    ("cli", "lib"),
    ("bench", "main"),
];

/// The rules of one crate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// The modules of every layer, lowest first.
    layers: Vec<Vec<String>>,
    /// The modules whose files still form circles.
    circles: Vec<Vec<String>>,
}

impl Rules {
    fn of(name: &str) -> Self {
        let text = fs::read_to_string(workspace().join(LIST)).expect("the list of layers");
        let mut table: toml::Table = text.parse().expect("the list of layers is TOML");
        let section = table.remove(name).unwrap_or_else(|| panic!("{LIST} has no section for {name}"));
        section.try_into().unwrap_or_else(|error| panic!("{LIST}, {name}: {error}"))
    }

    /// Returns the layer with the longest name that matches `module`.
    fn layer(&self, module: &[String]) -> Option<usize> {
        let names = (1..=module.len()).rev().map(|length| module[..length].join("::"));
        let mut names: Box<dyn Iterator<Item = String>> =
            if module.is_empty() { Box::new(std::iter::once("crate".to_owned())) } else { Box::new(names) };
        names.find_map(|name| self.layers.iter().position(|layer| layer.contains(&name)))
    }

    /// Returns a line for every file without a layer and for every import from a higher layer.
    fn violations(&self, graph: &Graph) -> Vec<String> {
        let without_layer = graph.modules.iter().filter(|module| self.layer(module).is_none());
        let mut violations: Vec<String> =
            without_layer.map(|module| format!("no layer lists {}", display(module))).collect();
        for import in &graph.imports {
            let related = is_ancestor(&import.from, &import.to) || is_ancestor(&import.to, &import.from);
            if !related && self.layer(&import.from) < self.layer(&import.to) {
                let (from, to) = (display(&import.from), display(&import.to));
                violations.push(format!("{from}, line {}, imports from the higher layer of {to}", import.line));
            }
        }
        violations
    }

    /// Returns the names in the list that match no file.
    fn unused(&self, graph: &Graph) -> Vec<String> {
        let known: BTreeSet<String> =
            graph.modules.iter().flat_map(|module| (0..=module.len()).map(|end| display(&module[..end]))).collect();
        self.layers.iter().flatten().filter(|name| !known.contains(*name)).cloned().collect()
    }

    /// Returns a line for every circle that is not listed.
    fn new_circles(&self, graph: &Graph) -> Vec<String> {
        let matches = |module: &str, name: &String| {
            module == name || module.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with("::"))
        };
        let is_listed = |circle: &[String]| {
            self.circles.iter().any(|names| circle.iter().all(|module| names.iter().any(|name| matches(module, name))))
        };
        let circles = graph.circles().into_iter().map(|circle| circle.iter().map(|module| display(module)).collect());
        circles.filter(|circle: &Vec<String>| !is_listed(circle)).map(|circle| circle.join(", ")).collect()
    }
}

/// Reads the graph of a crate of the workspace.
fn graph(name: &str, root: &str) -> Graph {
    let folder = workspace().join(name).join("src");
    let files: Vec<(Path, String)> = rust_below(&folder)
        .into_iter()
        .map(|(path, text)| {
            let below = path.strip_prefix(&folder).expect("a file below the folder").with_extension("");
            let module: Path = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            (if module == [root] { Vec::new() } else { module }, text)
        })
        .collect();
    assert!(files.len() > 3, "the files of {name} were not found");
    Graph::new(&files)
}

#[test]
fn imports_point_to_the_same_or_a_lower_layer() {
    for (name, root) in CRATES {
        let (rules, graph) = (Rules::of(name), graph(name, root));
        let violations = rules.violations(&graph);
        assert!(violations.is_empty(), "layers of {name}:\n{}", violations.join("\n"));
        let unused = rules.unused(&graph);
        assert!(unused.is_empty(), "{LIST} lists modules of {name} that do not exist: {}", unused.join(", "));
    }
}

#[test]
fn imports_form_no_circle() {
    for (name, root) in CRATES {
        let circles = Rules::of(name).new_circles(&graph(name, root));
        assert!(circles.is_empty(), "files of {name} import each other in a circle:\n{}", circles.join("\n"));
    }
}

/// Builds a graph from pairs of a module and the text of its file.
fn sample(files: &[(&str, &str)]) -> Graph {
    let module = |name: &str| name.split("::").filter(|part| *part != "crate").map(str::to_owned).collect();
    let files: Vec<(Path, String)> = files.iter().map(|(name, text)| (module(name), (*text).to_owned())).collect();
    Graph::new(&files)
}

fn layers(layers: &[&[&str]]) -> Rules {
    let layers = layers.iter().map(|layer| layer.iter().map(|name| (*name).to_owned()).collect()).collect();
    Rules { layers, circles: Vec::new() }
}

#[test]
fn every_form_of_import_is_found() {
    for text in [
        "use crate::high::Item;",
        "use crate::{low::Other, high::{deep::Item, Another as Renamed}};",
        "use super::high::Item;",
        "fn run() { crate::high::run() }",
        "fn run() { select! { _ = super::high::run() => {} } }",
        "struct Item(crate::high::Item);",
        "mod inner { use super::super::high::Item; }",
        "use crate::Item;",
    ] {
        let root = "mod high; mod low; pub use high::Item;";
        let graph = sample(&[("crate", root), ("high", ""), ("low", text)]);
        let violations = layers(&[&["low"], &["high"], &["crate"]]).violations(&graph);
        assert_eq!(violations, ["low, line 1, imports from the higher layer of high"], "{text}");
    }
}

#[test]
fn tests_comments_and_visibility_are_not_imports() {
    for text in [
        "#[cfg(test)] mod tests { use crate::high::Item; }",
        "#[cfg(test)] use crate::high::Item;",
        "#[cfg(test)] fn run(item: &crate::high::Item) -> u8 { 1 }",
        "// use crate::high::Item;",
        "/// Like [`crate::high::Item`].\nstruct Item;",
        "pub(in crate::high) struct Item;",
        "use std::high::Item;",
    ] {
        let graph = sample(&[("crate", ""), ("high", ""), ("low", text)]);
        assert_eq!(graph.imports, [], "{text}");
    }
    let graph =
        sample(&[("crate", "#[cfg(test)] mod contract;"), ("contract", "use crate::high::Item;"), ("high", "")]);
    assert_eq!(graph.imports, []);
}

#[test]
fn a_file_without_a_layer_is_reported() {
    let graph = sample(&[("crate", ""), ("low", ""), ("low::part", ""), ("other", "")]);
    assert_eq!(layers(&[&["low"], &["crate"]]).violations(&graph), ["no layer lists other"]);
    assert_eq!(layers(&[&["low", "old"], &["crate", "other"]]).unused(&graph), ["old"]);
}

#[test]
fn the_longest_name_decides_the_layer() {
    let graph = sample(&[("crate", ""), ("low", "use crate::high::part::Item;"), ("high", ""), ("high::part", "")]);
    assert_eq!(layers(&[&["high::part"], &["low"], &["high", "crate"]]).violations(&graph), [""; 0]);
    assert_eq!(layers(&[&["low"], &["high", "crate"]]).violations(&graph).len(), 1);
}

#[test]
fn circles_are_found_through_other_files() {
    let circle = [
        ("crate", "mod one; mod two; mod three;"),
        ("one", "use crate::two::Two;"),
        ("two", "use crate::three::Three;"),
        ("three", "fn run() { super::one::run() }"),
    ];
    let rules = layers(&[&["one", "two", "three"], &["crate"]]);
    assert_eq!(rules.new_circles(&sample(&circle)), ["one, three, two"]);
    assert_eq!(rules.new_circles(&sample(&circle[..3])), [""; 0]);
}

#[test]
fn a_parent_and_its_child_may_import_each_other() {
    let parent = "mod child; use child::Item; use crate::other::Item as Other;";
    let child = "use super::Shared; use crate::parent::Shared as Again;";
    let other = "use crate::parent::child::Item;";
    let related = [("crate", ""), ("parent", parent), ("parent::child", child), ("other", "")];
    let rules = layers(&[&["parent", "other"], &["crate"]]);
    assert_eq!(rules.new_circles(&sample(&related)), [""; 0]);
    let round = [related[0], related[1], ("parent::child", "use crate::other::Item;"), ("other", other)];
    assert_eq!(rules.new_circles(&sample(&round)), ["other, parent::child"]);
}
