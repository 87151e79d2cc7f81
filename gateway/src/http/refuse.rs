//! Turning a client away after the upgrade, so that it learns why.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::reject::Farewell;
use crate::websocket::writer;

/// How long a refused client has to take the news and end its side.
const GRACE: Duration = Duration::from_secs(5);

/// Sends the error and the close frame, then waits for the client to end the connection.
pub(crate) async fn refuse(mut stream: TcpStream, farewell: &Farewell) {
    // A client that is gone, or does not take this in time, has lost nothing that it can be given.
    let _ = timeout(GRACE, say(&mut stream, farewell)).await;
}

async fn say(stream: &mut TcpStream, farewell: &Farewell) -> std::io::Result<()> {
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
