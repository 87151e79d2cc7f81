//! Reloads the certificates of a running server when their files change.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use shared::serve::tls::{Tls, TlsError};
use tokio::signal::unix::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// The interval at which the files are read. Kubernetes takes about a minute to update a secret in a pod and sends no
/// signal.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Reloads certificates at each signal, and every `interval` if the files have changed. If the new files cannot be
/// used, logs one error and keeps the old certificate.
///
/// `tls`: `None` if TLS is not configured. `reload`: `None` if no signal is handled.
pub(crate) async fn watch(tls: Option<Arc<Tls>>, mut reload: Option<Signal>, interval: Duration) -> Infallible {
    let mut check = interval_at(Instant::now() + interval, interval);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_signal = tokio::select! {
            () = recv(&mut reload) => true,
            _ = check.tick(), if tls.is_some() => false,
        };
        let Some(tls) = tls.clone() else {
            tracing::info!("received SIGHUP: no certificates to reload, because TLS is not configured");
            continue;
        };
        // Reading a file can block if its disk is slow or unavailable.
        let read = move || if is_signal { tls.reload().map(|()| true) } else { tls.reload_if_changed() };
        match tokio::task::spawn_blocking(read).await {
            Ok(read) => log(read),
            Err(error) => tracing::error!(%error, "cannot reload certificates; the old ones stay in use"),
        }
    }
}

async fn recv(signal: &mut Option<Signal>) {
    match signal {
        // The stream of signals ends only with the runtime.
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn log(read: Result<bool, TlsError>) {
    match read {
        Ok(true) => tracing::info!("certificates reloaded; new connections use them"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "cannot reload certificates; the old ones stay in use"),
    }
}

#[cfg(test)]
mod tests;
