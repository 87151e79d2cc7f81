//! Rules of the source that no compiler checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tests::command::workspace;

const CRATES: [&str; 7] = ["shared", "gateway", "publisher", "webhooks", "client", "cli", "tests"];

const SCRIPTS: [&str; 4] = ["mjs", "js", "css", "html"];

/// Every Rust file of the workspace, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for part in CRATES.into_iter().chain(["bench", "fuzz"]) {
        for folder in ["src", "it", "benches", "fuzz_targets"] {
            collect(&workspace().join(part).join(folder), &mut found);
        }
    }
    assert!(found.len() > 50, "the sources were not found: {}", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("an entry of the folder").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            found.push((path.strip_prefix(workspace()).expect("below the workspace").to_owned(), text));
        }
    }
}

/// Every script, page and style of the examples and of the tests in Node, with its text.
fn scripts() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in ["examples", "tests/browser", "tests/clients/node"] {
        collect_scripts(&workspace().join(folder), &mut found);
    }
    assert!(found.len() > 20, "the scripts were not found: {}", found.len());
    found
}

fn collect_scripts(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a folder of scripts") {
        let path = entry.expect("an entry of the folder").path();
        if path.is_dir() {
            if !path.ends_with("node_modules") {
                collect_scripts(&path, found);
            }
        } else if SCRIPTS.iter().any(|kind| path.extension().is_some_and(|extension| extension == *kind)) {
            let text = fs::read_to_string(&path).expect("scripts are UTF-8");
            found.push((path.strip_prefix(workspace()).expect("below the workspace").to_owned(), text));
        }
    }
}

/// Lines of code that match, as `file:line: text`; comments are left out.
fn lines_with(place: &str, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !path.starts_with(place) {
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

#[test]
fn dependencies_point_one_way() {
    for (name, allowed) in [
        ("shared", &[][..]),
        ("gateway", &["shared"]),
        ("publisher", &["shared"]),
        ("webhooks", &["shared"]),
        ("client", &["shared"]),
        ("cli", &["shared", "client", "gateway", "publisher", "webhooks"]),
    ] {
        let manifest = fs::read_to_string(workspace().join(name).join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = manifest.parse().expect("manifests are TOML");
        let dependencies = ["dependencies", "dev-dependencies", "build-dependencies"];
        let own: BTreeSet<&str> = dependencies
            .iter()
            .filter_map(|kind| manifest.get(*kind)?.as_table())
            .flat_map(toml::Table::keys)
            .map(String::as_str)
            .filter(|dependency| {
                ["shared", "gateway", "publisher", "webhooks", "client", "carillon", "tests", "bench"]
                    .contains(dependency)
            })
            .collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        assert_eq!(own, allowed, "the project's own crates that {name} depends on");
    }
}

#[test]
fn modules_of_shared_point_one_way() {
    let ground = ["allowance", "app", "auth", "config", "excerpt", "json", "limits", "protocol", "secret"];
    let exceptions = ["shared/src/app.rs: use crate::cluster::webhook::Endpoint;"];
    let check = |module: &str, higher: &[&str]| {
        let wrong: Vec<String> = [format!("shared/src/{module}.rs"), format!("shared/src/{module}")]
            .iter()
            .flat_map(|place| lines_with(place, |line| higher.iter().any(|module| line.contains(module))))
            .filter(|line| !is_test_module(Path::new(line.split(':').next().unwrap_or_default())))
            .filter(|line| !exceptions.contains(&without_number(line).as_str()))
            .collect();
        assert!(wrong.is_empty(), "{module} imports from a higher layer:\n{}", wrong.join("\n"));
    };
    for module in ground {
        check(module, &["crate::serve", "crate::cluster"]);
    }
    check("serve", &["crate::cluster"]);
}

/// `file:line: text` without the number.
fn without_number(line: &str) -> String {
    let mut parts = line.splitn(3, ':');
    let (file, _, text) = (parts.next(), parts.next(), parts.next());
    format!("{}:{}", file.unwrap_or_default(), text.unwrap_or_default())
}

#[test]
fn the_protocol_and_its_signatures_are_pure() {
    let forbidden =
        ["tokio", "std::time", "std::net", "std::fs", "std::env", "std::thread", "hyper", "async fn", ".await"];
    for place in ["shared/src/protocol.rs", "shared/src/protocol", "shared/src/auth.rs", "shared/src/auth"] {
        let wrong = lines_with(place, |line| forbidden.iter().any(|word| line.contains(word)));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn only_the_configuration_reads_the_environment() {
    for part in ["shared", "gateway", "publisher", "webhooks", "client", "cli"] {
        let wrong: Vec<String> = lines_with(part, |line| line.contains("env::"))
            .into_iter()
            .filter(|line| !line.starts_with("shared/src/config.rs:"))
            .filter(|line| !line.contains("env_file::") && !line.contains("std::env::temp_dir"))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    assert!(
        !lines_with("shared/src/config.rs", |line| line.contains("std::env::")).is_empty(),
        "the check itself works"
    );
}

#[test]
fn files_stay_short() {
    const LINES_MAX: usize = 500;
    let long: Vec<String> = sources()
        .iter()
        .chain(&scripts())
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    // Written apart, or this file would be the first to be found.
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    for (path, text) in sources().into_iter().chain(scripts()) {
        for (index, line) in text.lines().enumerate() {
            let found = words.iter().any(|word| line.contains(word.as_str()));
            assert!(!found, "{}:{}: {line}", path.display(), index + 1);
        }
    }
}

#[test]
fn modules_say_what_they_are_for() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|(path, text)| !text.starts_with("//!") && !is_test_module(path) && !path.starts_with("fuzz"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "no comment at the top of:\n{}", silent.join("\n"));
}

fn is_test_module(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

#[test]
fn links_in_the_readme_and_docs_resolve() {
    let root = workspace();
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("tests/browser/README.md")];
    for folder in ["docs", "examples"] {
        if let Ok(entries) = fs::read_dir(root.join(folder)) {
            pages.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    for example in ["clinic", "tickets", "chat", "sync-progress"] {
        pages.push(root.join("examples").join(example).join("README.md"));
    }
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let Ok(text) = fs::read_to_string(page) else { continue };
        let folder = page.parent().expect("a page is in a folder");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            assert!(folder.join(path).exists(), "{} links to {target}, which is not there", page.display());
        }
    }
}
