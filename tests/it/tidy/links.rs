//! The links between documents.

use std::fs;

use tests::command::workspace;

#[test]
fn links_in_documents_resolve() {
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
            assert!(folder.join(path).exists(), "{} links to {target}, which does not exist", page.display());
        }
    }
}
