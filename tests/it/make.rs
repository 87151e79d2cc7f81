//! `make needs` on a machine that has only the commands of the test.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tests::command::workspace;

/// Every command that the tests need and that is searched for by name.
const TOOLS: [&str; 8] = ["cc", "node", "npm", "python3", "redis-server", "nginx", "openssl", "chromium"];

/// Writes a command of that name that runs this script.
fn tool(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the file can be written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("the file belongs to the current user");
}

/// Runs `make needs` with only the commands in `folder`, as a user with this id.
fn needs(folder: &Path, user: u32) -> Output {
    tool(folder, "id", &format!("echo {user}"));
    let mut command = Command::new("make");
    command.args(["-s", "-C"]).arg(workspace()).args(["needs", &format!("PATH={}", folder.display())]);
    command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().expect("make is installed")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn nothing_is_installed_if_all_packages_are_present() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in TOOLS {
        tool(folder.path(), name, "exit 0");
    }
    let output = needs(folder.path(), 1000);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "");
}

#[test]
fn missing_packages_are_reported_if_they_cannot_be_installed() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in TOOLS.iter().filter(|name| !["cc", "nginx"].contains(name)) {
        tool(folder.path(), name, "exit 0");
    }
    let output = needs(folder.path(), 1000);
    assert!(!output.status.success());
    assert!(said(&output).contains("apt-get is not installed"), "{}", said(&output));
    tool(folder.path(), "apt-get", "echo apt-get was called; exit 1");
    let output = needs(folder.path(), 1000);
    assert!(!output.status.success());
    for words in ["gcc libc6-dev nginx\n", "not root", "sudo is not installed"] {
        assert!(said(&output).contains(words), "no {words:?} in {}", said(&output));
    }
    assert!(!said(&output).contains("was called"), "{}", said(&output));
    let output = needs(folder.path(), 0);
    assert!(!output.status.success());
    assert!(said(&output).contains("was called") && said(&output).contains("apt-get could not"), "{}", said(&output));
}

#[test]
fn users_other_than_root_install_with_sudo() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in TOOLS.iter().filter(|name| **name != "redis-server") {
        tool(folder.path(), name, "exit 0");
    }
    tool(folder.path(), "apt-get", "echo \"apt-get $*\"");
    tool(folder.path(), "sudo", "echo with sudo: && \"$@\"");
    let output = needs(folder.path(), 1000);
    let expected = "with sudo:\napt-get update -q\nwith sudo:\napt-get install -yq redis-server\n";
    assert_eq!((said(&output).as_str(), output.status.success()), (expected, true));
    let output = needs(folder.path(), 0);
    assert_eq!(said(&output), "apt-get update -q\napt-get install -yq redis-server\n");
}
