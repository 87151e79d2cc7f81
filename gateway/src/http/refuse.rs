//! Refuses a client after the upgrade, so that it receives the reason.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::reject::Farewell;
use crate::websocket::writer;

/// How long a refused client has to read the reason and to close its side.
const GRACE: Duration = Duration::from_secs(5);

/// Sends the error message and the close frame, then waits until the client closes the connection.
pub(crate) async fn refuse(mut stream: TcpStream, farewell: &Farewell) {
    // A failure has no consequence: the connection is dropped in any case.
    let _ = timeout(GRACE, send(&mut stream, farewell)).await;
}

async fn send(stream: &mut TcpStream, farewell: &Farewell) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    if let Some(announcement) = farewell.announcement() {
        bytes.extend_from_slice(&writer::text(announcement.as_bytes()));
    }
    bytes.extend_from_slice(&writer::close(farewell.code, &farewell.message));
    stream.write_all(&bytes).await?;
    stream.shutdown().await?;
    let mut dropped = [0; 512];
    while stream.read(&mut dropped).await? > 0 {}
    Ok(())
}
