//! Invalid input. It must not cause a panic, a hang, unbounded memory or delays of other connections. After each case the
//! witnesses, one on each shard, must still receive an event.

mod floods;
mod frames;
mod handshakes;
mod messages;
mod partials;
mod rates;
mod repeats;
mod requests;
mod sessions;
mod slow;
mod unread_bodies;

use tests::{Server, Setup, Witnesses};

/// A server with two shards and a witness on each.
async fn start(setup: Setup) -> (Server, Witnesses) {
    let server = Server::start(setup.server(Witnesses::SETUP)).await;
    let witnesses = Witnesses::join(&server).await;
    (server, witnesses)
}
