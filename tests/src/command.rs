//! The binary under test, and running its short commands.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::within;

/// What a command that ended by itself left behind.
#[derive(Debug)]
pub struct Finished {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The binary: `BINARY_UNDER_TEST`, or else what the workspace's own builds left.
///
/// # Panics
/// When there is none: tests never build it themselves.
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

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the workspace")
}

/// The binary with these arguments and nothing from the environment but the given variables.
pub fn carillon(args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(variables.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A program that is killed when dropped, and also when the thread that starts it ends, in whatever way: nothing that a
/// test starts outlives it.
pub fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).kill_on_drop(true);
    command
}

/// A program as [`tied`] starts it, with its standard input as the first socket of a socket activation. systemd passes
/// sockets from descriptor 3 on and names the process that they are for.
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
/// When the process is gone.
pub fn signal(process: &Child, signal: Signal) {
    let id = process.id().expect("the process lives");
    let pid = Pid::from_raw(id.cast_signed()).expect("a pid is not 0");
    kill_process(pid, signal).expect("the process lives");
}

/// Runs a command to its end in the folder `place`.
///
/// # Panics
/// When it does not end in time, or by a signal.
pub async fn run(place: &Path, args: &[&str], variables: &[(&str, &str)]) -> Finished {
    let output = within(&args.join(" "), carillon(args, variables).current_dir(place).output()).await;
    let output = output.expect("the binary can be run");
    Finished {
        code: output.status.code().expect("the command ended by itself"),
        stdout: String::from_utf8(output.stdout).expect("output is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("output is UTF-8"),
    }
}
