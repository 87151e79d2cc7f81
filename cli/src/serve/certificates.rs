//! Keeps the certificates of a running server what they are in its files.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use shared::serve::tls::{Tls, TlsError};
use tokio::signal::unix::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often the files are looked at: Kubernetes itself takes about a minute to bring a changed secret to a pod, and tells
/// nobody. Two small files are read.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Reads certificates again whenever `asked` says so, and looks every `interval` whether they have changed. What cannot be
/// used is told once, and the old ones stay.
///
/// `asked`: `None` where nobody may ask. `tls`: `None` where there are none.
pub(crate) async fn keep(tls: Option<Arc<Tls>>, mut asked: Option<Signal>, interval: Duration) -> Infallible {
    let mut look = interval_at(Instant::now() + interval, interval);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_asked = tokio::select! {
            () = recv(&mut asked) => true,
            _ = look.tick(), if tls.is_some() => false,
        };
        let Some(tls) = tls.clone() else {
            tracing::info!("nothing to read again: no TLS is served");
            continue;
        };
        // A file may be on a disk that is slow or gone.
        let read = move || if is_asked { tls.reload().map(|()| true) } else { tls.reload_if_changed() };
        match tokio::task::spawn_blocking(read).await {
            Ok(read) => tell(read),
            Err(error) => tracing::error!(%error, "certificates cannot be read; the old ones stay"),
        }
    }
}

async fn recv(signal: &mut Option<Signal>) {
    match signal {
        // The end of signals is the end of the runtime.
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn tell(read: Result<bool, TlsError>) {
    match read {
        Ok(true) => tracing::info!("certificates read again; new connections get them"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "certificates cannot be read; the old ones stay"),
    }
}

#[cfg(test)]
mod tests;
