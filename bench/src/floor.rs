//! The floor: a baseline server with the minimal part of the protocol that a subscription needs. One epoll loop writes
//! the same bytes to the same sockets as a real server, without checks, counters or logs.
//!
//! This module starts the floor as a separate process and sends it plans.

mod channels;
mod server;
mod socket;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};

use crate::plan::Plan;

pub(crate) use server::serve;

/// A running floor. Dropping it ends the process.
pub(crate) struct Floor {
    child: Child,
    pub(crate) address: SocketAddr,
    control: Arc<Mutex<Control>>,
}

/// The pipes to the floor's process.
struct Control {
    /// `None` once the floor must exit.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// A plan that the floor is carrying out.
pub(crate) struct FloorPublishing {
    control: Arc<Mutex<Control>>,
}

impl Floor {
    /// Starts this program as a child process in the role of the floor.
    pub(crate) fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("floor")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the floor")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the floor has no standard output")?);
        let mut control = Control { input, output };
        let port: u16 = control.reply()?.parse().context("the floor did not print its port")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { child, address, control: Arc::new(Mutex::new(control)) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a plan to the floor.
    pub(crate) fn publish(&self, plan: &Plan) -> Result<FloorPublishing> {
        let mut control = self.control.lock().expect("the lock is not poisoned");
        let input = control.input.as_mut().context("the floor has exited")?;
        input.write_all((serde_json::to_string(plan)? + "\n").as_bytes())?;
        Ok(FloorPublishing { control: self.control.clone() })
    }
}

impl FloorPublishing {
    /// Waits until the floor has written everything.
    pub(crate) fn join(self) -> Result<()> {
        let reply = self.control.lock().expect("the lock is not poisoned").reply()?;
        ensure!(reply == server::DONE, "unexpected reply of the floor: {reply:?}");
        Ok(())
    }
}

impl Control {
    fn reply(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the floor has exited");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // The floor exits when its input ends. It is also killed, because a blocked floor must not block this process.
        if let Ok(mut control) = self.control.lock() {
            control.input = None;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
