//! Runs the binary under test and its short commands.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::within;

/// The result of a command that has exited.
#[derive(Debug)]
pub struct Finished {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Returns the binary: `BINARY_UNDER_TEST`, or else the newest build of the workspace.
///
/// # Panics
/// Panics if there is none. Tests never build it.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("BINARY_UNDER_TEST") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "BINARY_UNDER_TEST names no file: {}", path.display());
        return path;
    }
    let target = workspace().join("target");
    let built = ["release", "debug"].map(|profile| target.join(profile).join("carillon"));
    match built.iter().find(|path| path.is_file()) {
        Some(path) => path.clone(),
        None => {
            panic!("no carillon in {}: run `cargo build --release` first, or set BINARY_UNDER_TEST", target.display())
        }
    }
}

/// Returns the root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the workspace")
}

/// Returns a command for the binary with these arguments. The environment has only the given variables.
pub fn carillon(args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(variables.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Returns a command for a program that is killed when it is dropped, or when the thread that started it ends.
/// Processes of a test never outlive it.
pub fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).kill_on_drop(true);
    command
}

/// Returns a command like [`tied`]. Its standard input is the first socket of a socket activation. systemd passes
/// sockets from descriptor 3 on and names the process that receives them.
pub fn activated(program: &Path, name: &str) -> Command {
    let mut command = tied("/bin/sh".as_ref());
    let script =
        "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_FDNAMES=\"$1\"; shift; exec \"$@\"";
    command.args(["-c", script, "sh", name]).arg(program);
    command
}

/// Sends a signal.
///
/// # Panics
/// Panics if the process has exited.
pub fn signal(process: &Child, signal: Signal) {
    let id = process.id().expect("the process is running");
    let pid = Pid::from_raw(id.cast_signed()).expect("a pid is not 0");
    kill_process(pid, signal).expect("the process is running");
}

/// Runs a command in `folder` until it exits.
///
/// # Panics
/// Panics if it does not exit in time, or is killed by a signal.
pub async fn run(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Finished {
    let output = within(&args.join(" "), carillon(args, variables).current_dir(folder).output()).await;
    let output = output.expect("the binary can be run");
    Finished {
        code: output.status.code().expect("the command ended by itself"),
        stdout: String::from_utf8(output.stdout).expect("output is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("output is UTF-8"),
    }
}
