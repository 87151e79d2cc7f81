//! The signals that shut a server down or reload its certificates.

use std::convert::Infallible;
use std::io::{self, IsTerminal};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// The exit code that a shell reports for a command that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// The handlers of SIGINT and SIGTERM.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Installs the handlers. From then on, neither signal ends the process by itself.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Sends `shutdown` at the first signal, and ends the process at the second.
    pub(crate) async fn run(mut self, shutdown: oneshot::Sender<()>) -> Infallible {
        self.next().await;
        tracing::info!("shutting down: draining connections; a second signal exits at once");
        let _ = shutdown.send(());
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

/// Returns the handler of SIGHUP, which reloads the certificates.
///
/// In a terminal, SIGHUP also means that the terminal was closed. There, a process without TLS has no handler, so that
/// the signal ends it.
pub(crate) fn reload_signal(serves_tls: bool) -> io::Result<Option<Signal>> {
    if serves_tls || !io::stdin().is_terminal() { signal(SignalKind::hangup()).map(Some) } else { Ok(None) }
}
