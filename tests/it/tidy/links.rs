//! The links between documents.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tests::command::workspace;

/// The pages outside of the folders in [`FOLDERS`].
const PAGES: [&str; 12] = [
    "README.md",
    "CONTRIBUTING.md",
    "bench/README.md",
    "bench/RESULTS.md",
    "deploy/README.md",
    "examples/chat/README.md",
    "examples/clinic/README.md",
    "examples/sync-progress/README.md",
    "examples/tickets/README.md",
    "helm/carillon/README.md",
    "k6/README.md",
    "tests/browser/README.md",
];

/// The folders whose pages are checked. Templates are checked as the pages that are generated from them.
const FOLDERS: [&str; 3] = ["docs", "docs/decisions", "examples"];

#[test]
fn links_in_documents_resolve() {
    for page in pages() {
        let text = fs::read_to_string(&page).expect("the page exists");
        let folder = page.parent().expect("a page is in a folder");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let linked = if path.is_empty() { page.clone() } else { folder.join(path) };
            assert!(linked.exists(), "{} links to {target}, which does not exist", page.display());
            if !anchor.is_empty() && linked.extension().is_some_and(|extension| extension == "md") {
                assert!(
                    anchors(&linked).contains(anchor),
                    "{} links to {target}, which has no heading",
                    page.display()
                );
            }
        }
    }
}

fn pages() -> Vec<PathBuf> {
    let root = workspace();
    let mut pages = PAGES.map(|page| root.join(page)).to_vec();
    for folder in FOLDERS {
        let entries = fs::read_dir(root.join(folder)).expect("the folder exists");
        pages.extend(entries.map(|entry| entry.expect("an entry").path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".md") && !name.ends_with(".in.md")
        }));
    }
    pages
}

/// Returns the anchors of a page's headings, by the rules of GitHub.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).expect("the page exists");
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|character| character.is_alphanumeric() || matches!(character, '-' | '_')).collect()
    };
    headings.map(anchor).collect()
}
