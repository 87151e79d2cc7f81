//! Nothing that arrives may panic, hang, grow memory without bound or disturb another connection: after each case the
//! witnesses, one on each shard, still get an event.

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
