//! The lengths of files and functions, and marks that a file must or must not have.

use std::path::Path;

use super::files::{is_test_module, scripts, sources};
use super::imports::Source;

const FILE_LINES_MAX: usize = 400;
const TEST_FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 60;
/// A scenario of an integration test is one function, whose steps share their processes.
const TEST_FUNCTION_LINES_MAX: usize = 100;

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for (path, text) in sources().iter().chain(&scripts()) {
        let lines = text.lines().count();
        let max = if is_for_tests(path) { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX };
        if lines > max {
            long.push(format!("{} has {lines} lines, more than {max}", path.display()));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let max = if is_for_tests(&path) { TEST_FUNCTION_LINES_MAX } else { FUNCTION_LINES_MAX };
        for (name, line, lines) in long_functions(&text, max) {
            long.push(format!("{}:{line}: {name} has {lines} lines, more than {max}", path.display()));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

fn long_functions(text: &str, max: usize) -> Vec<(String, usize, usize)> {
    let functions = Source::parse(&[], text).expect("Rust source").functions;
    let long = functions.into_iter().filter(|function| function.lines > max);
    long.map(|function| (function.name, function.line, function.lines)).collect()
}

fn is_for_tests(path: &Path) -> bool {
    is_test_module(path) || path.ends_with("contract.rs") || path.starts_with("tests")
}

#[test]
fn a_long_function_is_found() {
    let function = |lines: usize| format!("\n#[test]\nasync fn run<T>(\n{}) -> u8 {{\n1 }}\n", "\n".repeat(lines - 3));
    assert_eq!(long_functions(&function(FUNCTION_LINES_MAX), FUNCTION_LINES_MAX), []);
    let found = [("run".to_owned(), 3, FUNCTION_LINES_MAX + 1)];
    assert_eq!(long_functions(&function(FUNCTION_LINES_MAX + 1), FUNCTION_LINES_MAX), found);
    let inner = format!("#[cfg(test)]\nmod tests {{{}}}", function(FUNCTION_LINES_MAX + 1));
    assert_eq!(long_functions(&inner, FUNCTION_LINES_MAX).len(), 1);
}

#[test]
fn no_work_is_left_for_later() {
    // The marks are assembled, because the test reads this file too.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    for (path, text) in sources().into_iter().chain(scripts()) {
        for (index, line) in text.lines().enumerate() {
            let found = marks.iter().any(|mark| line.contains(mark.as_str()));
            assert!(!found, "{}:{}: {line}", path.display(), index + 1);
        }
    }
}

#[test]
fn every_module_begins_with_a_description() {
    let missing: Vec<String> = sources()
        .iter()
        .filter(|(path, text)| !text.starts_with("//!") && !is_test_module(path) && !path.starts_with("fuzz"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(missing.is_empty(), "no `//!` comment at the top of:\n{}", missing.join("\n"));
}
