//! Bodies of fallback requests.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Body as _;
use shared::app::{App, as_usize};
use shared::serve::http::RequestBody;
use tokio::time::timeout;

use super::body::Answer;
use super::error;
use crate::limits::{EMPTY_BODY_BYTES_MAX, FALLBACK_BODY_FACTOR, LARGE_BODIES_BYTES_MAX, SMALL_BODY_BYTES_MAX};
use crate::node::Node;

/// A body must arrive within this time, as at the HTTP API.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest body of messages.
pub(crate) fn body_bytes_max(app: &App) -> usize {
    as_usize(app.limits.message_bytes).saturating_mul(FALLBACK_BODY_FACTOR)
}

/// Reads a whole body of at most `max` bytes. A large one first waits until the node has room for it.
///
/// # Errors
/// The response for a body that is too large, too slow or broken.
pub(super) async fn collect(node: &Node, body: RequestBody, max: usize) -> Result<Bytes, Answer> {
    let announced = body.size_hint().exact().map_or(max, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if announced > max {
        return Err(too_large(max));
    }
    let read = async {
        let _permit = if announced > SMALL_BODY_BYTES_MAX {
            let bytes = u32::try_from(announced.min(LARGE_BODIES_BYTES_MAX)).unwrap_or(u32::MAX);
            node.large_bodies.acquire_many(bytes).await.ok()
        } else {
            None
        };
        Limited::new(body, max).collect().await
    };
    match timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => Err(too_large(max)),
        Ok(Err(_)) => Err(broken()),
        Err(_) => Err(too_slow()),
    }
}

/// Discards the body of a request that needs none. While it is on its way, hyper does not see whether its client is away.
///
/// # Errors
/// As [`collect`].
pub(super) async fn discard(mut body: RequestBody) -> Result<(), Answer> {
    let read = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| broken())?;
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > EMPTY_BODY_BYTES_MAX {
                return Err(too_large(EMPTY_BODY_BYTES_MAX));
            }
        }
        Ok(())
    };
    match timeout(BODY_TIMEOUT, read).await {
        Ok(read) => read,
        Err(_) => Err(too_slow()),
    }
}

fn too_large(max: usize) -> Answer {
    error(StatusCode::PAYLOAD_TOO_LARGE, &format!("The body may have {max} bytes"))
}

fn broken() -> Answer {
    error(StatusCode::BAD_REQUEST, "The body ended too early")
}

fn too_slow() -> Answer {
    error(StatusCode::REQUEST_TIMEOUT, "The body took too long")
}
