//! `make needs`, on machines that have nothing but what a test gives them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tests::command::workspace;

/// Everything that the tests need, as far as it is looked for by name.
const TOOLS: [&str; 8] = ["cc", "node", "npm", "python3", "redis-server", "nginx", "openssl", "chromium"];

/// A command of that name that runs this script.
fn tool(place: &Path, name: &str, script: &str) {
    let path = place.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the file can be written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("the file is ours");
}

/// `make needs` where only the commands in `place` are, as a user of this id.
fn needs(place: &Path, user: u32) -> Output {
    tool(place, "id", &format!("echo {user}"));
    let mut command = Command::new("make");
    command.args(["-s", "-C"]).arg(workspace()).args(["needs", &format!("PATH={}", place.display())]);
    command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().expect("make is installed")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn nothing_is_installed_where_all_is_there() {
    let place = tempfile::tempdir().expect("a folder");
    for name in TOOLS {
        tool(place.path(), name, "exit 0");
    }
    let output = needs(place.path(), 1000);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "");
}

#[test]
fn what_is_missing_is_said_where_it_cannot_be_installed() {
    let place = tempfile::tempdir().expect("a folder");
    for name in TOOLS.iter().filter(|name| !["cc", "nginx"].contains(name)) {
        tool(place.path(), name, "exit 0");
    }
    let output = needs(place.path(), 1000);
    assert!(!output.status.success());
    assert!(said(&output).contains("no apt-get"), "{}", said(&output));
    tool(place.path(), "apt-get", "echo apt-get was called; exit 1");
    let output = needs(place.path(), 1000);
    assert!(!output.status.success());
    for words in ["gcc libc6-dev nginx\n", "not root", "no sudo"] {
        assert!(said(&output).contains(words), "no {words:?} in {}", said(&output));
    }
    assert!(!said(&output).contains("was called"), "{}", said(&output));
    let output = needs(place.path(), 0);
    assert!(!output.status.success());
    assert!(said(&output).contains("was called") && said(&output).contains("could not"), "{}", said(&output));
}

#[test]
fn others_than_root_install_with_sudo() {
    let place = tempfile::tempdir().expect("a folder");
    for name in TOOLS.iter().filter(|name| **name != "redis-server") {
        tool(place.path(), name, "exit 0");
    }
    tool(place.path(), "apt-get", "echo \"apt-get $*\"");
    tool(place.path(), "sudo", "echo with sudo: && \"$@\"");
    let output = needs(place.path(), 1000);
    let expected = "with sudo:\napt-get update -q\nwith sudo:\napt-get install -yq redis-server\n";
    assert_eq!((said(&output).as_str(), output.status.success()), (expected, true));
    let output = needs(place.path(), 0);
    assert_eq!(said(&output), "apt-get update -q\napt-get install -yq redis-server\n");
}
