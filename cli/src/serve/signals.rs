//! The signals that end a server, and the one that makes it read its certificates again.

use std::convert::Infallible;
use std::io::{self, IsTerminal};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// What a shell reports for a command that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on neither signal ends the process by itself.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The first signal sends `leave`, the second ends the process.
    pub(crate) async fn obey(mut self, leave: oneshot::Sender<()>) -> Infallible {
        self.next().await;
        tracing::info!("leaving: closing connections; a second signal ends at once");
        let _ = leave.send(());
        self.next().await;
        std::process::exit(INTERRUPTED)
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// SIGHUP, where it is to be heard: it means that certificates are to be read again. In a terminal, where it also tells that
/// the terminal has gone, it ends a process that serves no TLS, as ever.
pub(crate) fn reload_signal(serves_tls: bool) -> io::Result<Option<Signal>> {
    if serves_tls || !io::stdin().is_terminal() { signal(SignalKind::hangup()).map(Some) } else { Ok(None) }
}
