//! Sockets that are subscribed and hear nothing.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::subscribers::{Handshake, Subscribers};
use crate::{Target, process};

#[derive(Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 10_000)]
    sockets: usize,
    /// Seconds that the sockets stay open after the measurement of connecting.
    #[arg(long, default_value_t = 3)]
    hold_s: u64,
}

impl Idle {
    pub(crate) fn run(self) -> Result<()> {
        let Target { port, pids, app_key, .. } = &self.target;
        let (cpu_before, resident_before) = (process::cpu(pids)?, process::resident_bytes(pids)?);
        let subscribers =
            Subscribers::connect(*port, self.sockets, app_key, crate::fanout::CHANNEL, Handshake::WebSocket)?;
        let cpu = process::cpu(pids)? - cpu_before;
        #[expect(clippy::disallowed_methods, reason = "a measurement over time, in a thread of its own")]
        std::thread::sleep(Duration::from_secs(self.hold_s));
        let resident = process::resident_bytes(pids)?;
        let sockets = self.sockets as f64;
        println!("idle: {} sockets on one channel", self.sockets);
        println!("  resident {:.2} MiB before, {:.2} MiB with them", mib(resident_before), mib(resident));
        println!("  {:.0} bytes resident per socket", (resident as f64 - resident_before as f64) / sockets);
        println!("  {:.1} us CPU per connect and subscribe", cpu.as_secs_f64() * 1e6 / sockets);
        drop(subscribers);
        Ok(())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
