//! The yardstick: a server that speaks just enough of the protocol to be subscribed to, and then only writes the right
//! bytes to the right sockets from one epoll loop. It checks nothing, counts nothing and logs nothing.
//!
//! This side starts it as a process of its own and tells it what to write.

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

/// A running floor. Ends when this is dropped.
pub(crate) struct Floor {
    child: Child,
    pub(crate) address: SocketAddr,
    control: Arc<Mutex<Control>>,
}

/// What the floor is told, and answers.
struct Control {
    /// `None` once the floor is to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// Waits for the end of a plan.
pub(crate) struct FloorPublishing {
    control: Arc<Mutex<Control>>,
}

impl Floor {
    /// Starts this program again as the floor.
    pub(crate) fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("floor")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the floor")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the floor has no output")?);
        let mut control = Control { orders, answers };
        let port: u16 = control.answer()?.parse().context("the floor's port")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { child, address, control: Arc::new(Mutex::new(control)) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it carry out a plan.
    pub(crate) fn publish(&self, plan: &Plan) -> Result<FloorPublishing> {
        let mut control = self.control.lock().expect("nobody panics with it");
        let orders = control.orders.as_mut().context("the floor has ended")?;
        orders.write_all((serde_json::to_string(plan)? + "\n").as_bytes())?;
        Ok(FloorPublishing { control: self.control.clone() })
    }
}

impl FloorPublishing {
    /// Waits until everything is written.
    pub(crate) fn join(self) -> Result<()> {
        let answer = self.control.lock().expect("nobody panics with it").answer()?;
        ensure!(answer == server::DONE, "the floor said {answer:?}");
        Ok(())
    }
}

impl Control {
    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the floor has ended");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It ends with its input. A floor that is stuck must not keep this process from ending.
        if let Ok(mut control) = self.control.lock() {
            control.orders = None;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
