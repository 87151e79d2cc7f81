//! Detects that the client of a pending response disconnected.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use shared::serve::http::ConnectionState;
use tokio::time::sleep;

/// A client may half-close its connection after the request that opens a session. It still receives the first lines of
/// the session if they are ready within this time.
const HALF_CLOSED_GRACE: Duration = Duration::from_millis(500);

/// Resolves when the client of a response has closed its side of the TCP connection.
pub(crate) type Disconnected = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The purpose of a request for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It opens the session. The first lines are due at once.
    Open,
    /// It reads lines of an open session. If the client disconnects, they wait for the next request.
    Attach,
}

/// Resolves when the client of a request has closed its side of the TCP connection.
pub(super) fn disconnected(connection: &Arc<ConnectionState>, purpose: Purpose) -> Disconnected {
    let connection = connection.clone();
    Box::pin(async move {
        connection.half_closed().await;
        if purpose == Purpose::Open {
            sleep(HALF_CLOSED_GRACE).await;
        }
    })
}
