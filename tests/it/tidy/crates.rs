//! The dependencies between crates, and the modules that stay free of input and output.

use std::collections::BTreeSet;
use std::fs;

use tests::command::workspace;

use super::files::lines_with;

#[test]
fn dependencies_between_crates_point_one_way() {
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
        assert_eq!(own, allowed, "the crates of the workspace that {name} depends on");
    }
}

#[test]
fn the_protocol_and_its_signatures_perform_no_io() {
    let forbidden =
        ["tokio", "std::time", "std::net", "std::fs", "std::env", "std::thread", "hyper", "async fn", ".await"];
    for module in ["shared/src/protocol.rs", "shared/src/protocol", "shared/src/auth.rs", "shared/src/auth"] {
        let wrong = lines_with(module, |line| forbidden.iter().any(|word| line.contains(word)));
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
        "the search does not find the one place that reads the environment"
    );
}
