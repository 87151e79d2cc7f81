//! The files that the rules read.

use std::fs;
use std::path::{Path, PathBuf};

use tests::command::workspace;

const CRATES: [&str; 9] = ["shared", "gateway", "publisher", "webhooks", "client", "cli", "tests", "bench", "fuzz"];

const SCRIPTS: [&str; 4] = ["mjs", "js", "css", "html"];

/// Folders with generated, installed or recorded files.
const SKIPPED: [&str; 8] = [".git", ".pytest_cache", ".venv", "__pycache__", "node_modules", "runs", "seeds", "target"];

/// Returns every Rust file of the workspace with its text. Paths are relative to the workspace.
pub(super) fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for part in CRATES {
        for folder in ["src", "it", "benches", "fuzz_targets"] {
            found.extend(rust_below(&workspace().join(part).join(folder)).into_iter().map(relative));
        }
    }
    assert!(found.len() > 50, "the sources were not found: {}", found.len());
    found
}

/// Returns every Rust file below `folder` with its text.
pub(super) fn rust_below(folder: &Path) -> Vec<(PathBuf, String)> {
    below(folder, &|path| has_extension(path, &["rs"]))
}

/// Returns every script, page and style of the examples and of the tests in Node with its text.
pub(super) fn scripts() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in ["examples", "tests/browser", "tests/clients/node"] {
        let scripts = below(&workspace().join(folder), &|path| has_extension(path, &SCRIPTS));
        found.extend(scripts.into_iter().map(relative));
    }
    assert!(found.len() > 20, "the scripts were not found: {}", found.len());
    found
}

/// Returns every file of the workspace that `is_selected` accepts, with its text.
pub(super) fn files(is_selected: &dyn Fn(&Path) -> bool) -> Vec<(PathBuf, String)> {
    below(workspace(), is_selected).into_iter().map(relative).collect()
}

/// Whether the path has one of the extensions.
pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|extension| extensions.iter().any(|known| extension == *known))
}

/// Whether the path belongs to a module named `tests`.
pub(super) fn is_test_module(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

/// Returns the lines of code below `folder` that match, as `file:line: text`. Skips comments.
pub(super) fn lines_with(folder: &str, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !path.starts_with(folder) {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            if !line.trim_start().starts_with("//") && is_wrong(line) {
                wrong.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    wrong
}

fn below(folder: &Path, is_selected: &dyn Fn(&Path) -> bool) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.expect("an entry of the folder").path();
        if path.is_dir() {
            if !SKIPPED.iter().any(|name| path.ends_with(name)) {
                found.extend(below(&path, is_selected));
            }
        } else if is_selected(&path) {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            found.push((path, text));
        }
    }
    found.sort();
    found
}

fn relative((path, text): (PathBuf, String)) -> (PathBuf, String) {
    (path.strip_prefix(workspace()).expect("a path below the workspace").to_owned(), text)
}
