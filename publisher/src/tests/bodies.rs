use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::Method;
use hyper::body::{Body, Frame, SizeHint};

use super::harness::{World, app};

/// A body with an announced length. Reading it is an error.
struct Announced(u64);

impl Body for Announced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body was read")
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

fn chunks<E>(chunks: Vec<Result<&'static str, E>>) -> impl Body<Data = Bytes, Error = E> {
    let frame = |text: &'static str| Frame::data(Bytes::from_static(text.as_bytes()));
    StreamBody::new(stream::iter(chunks.into_iter().map(move |chunk| chunk.map(frame))))
}

const EVENTS: &str = "/apps/3/events";

/// A size within the limits of the app, but too large to be read for the log.
const LARGE: u64 = 100_000;

/// Returns the path and the signed query for a publish of `body`.
fn signed(world: &World, body: &str) -> String {
    format!("{EVENTS}?{}", world.query(&Method::POST, EVENTS, &[], body))
}

#[tokio::test]
async fn a_body_with_a_too_large_announced_length_is_not_read() {
    let world = World::new();
    let max = world.app.limits.request_bytes();
    let reply = world.send_body(Method::POST, &signed(&world, "{"), Announced(max as u64 + 1)).await;
    let text = format!("The body of this request has {} bytes: at most {max} are allowed.", max + 1);
    assert_eq!((reply.status.as_u16(), reply.body.starts_with(&text)), (413, true), "{}", reply.body);
    assert!(reply.body.contains("limits.event_bytes"), "{}", reply.body);
}

#[tokio::test]
async fn a_body_for_an_unknown_app_is_not_read() {
    let reply = World::new().send_body(Method::POST, "/apps/4/events", Announced(LARGE)).await;
    reply.refused(404, "No matching application for ID [4].");
}

#[tokio::test]
async fn the_body_of_an_unauthenticated_request_is_not_read() {
    let world = World::new();
    let reply = world.send_body(Method::POST, EVENTS, Announced(LARGE)).await;
    reply.refused(401, "Missing parameter: auth_key");
    let forged = signed(&world, "{}").replace("body_md5=", "body_md5=0");
    let reply = world.send_body(Method::POST, &forged, Announced(LARGE)).await;
    assert_eq!(reply.status, 401);
    assert!(reply.body.starts_with("Invalid signature: "), "{}", reply.body);
}

#[tokio::test]
async fn a_body_for_a_disabled_app_is_not_read() {
    let mut app = app();
    app.enabled = false;
    let world = World::with(app, "");
    let reply = world.send_body(Method::POST, &signed(&world, "{}"), Announced(LARGE)).await;
    reply.refused(403, "The application is disabled");
}

#[tokio::test]
async fn a_too_large_body_without_an_announced_length_is_refused() {
    let world = World::new();
    let mebibyte: &'static str = "x".repeat(1024 * 1024).leak();
    let pieces = chunks::<Infallible>(vec![Ok("{"), Ok(mebibyte)]);
    let reply = world.send_body(Method::POST, &signed(&world, "{"), pieces).await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn a_body_in_pieces_is_assembled() {
    let world = World::new();
    world.subscribe(&["a"]).await;
    let body = r#"{"name":"e","data":"x","channel":"a"}"#;
    let pieces = chunks::<Infallible>(vec![Ok(&body[..5]), Ok(&body[5..])]);
    world.send_body(Method::POST, &signed(&world, body), pieces).await.ok("{}");
    assert_eq!(world.events().len(), 1);
}

#[tokio::test]
async fn a_truncated_body_is_refused() {
    let broken = chunks(vec![Ok("{"), Err(std::io::Error::other("reset"))]);
    let world = World::new();
    let reply = world.send_body(Method::POST, &signed(&world, "{"), broken).await;
    reply.refused(400, "The body of this request is not readable");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_times_out() {
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let world = World::new();
    let reply = world.send_body(Method::POST, &signed(&world, "{"), body).await;
    reply.refused(408, "The body of this request did not arrive in time");
}
