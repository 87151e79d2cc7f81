//! Reads the bodies of fallback requests.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Body as _;
use shared::serve::http::RequestBody;
use tokio::time::timeout;

use super::body::Response;
use super::responses::error;
use crate::limits::{EMPTY_BODY_BYTES_MAX, LARGE_BODIES_BYTES_MAX, SMALL_BODY_BYTES_MAX};
use crate::node::Node;

/// The time within which a body must arrive. The HTTP API has the same timeout.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a body of at most `max` bytes. A large body first waits for a permit of the node.
///
/// # Errors
/// The response for a body that is too large, too slow or incomplete.
pub(super) async fn collect(node: &Node, body: RequestBody, max: usize) -> Result<Bytes, Response> {
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
        Ok(Err(_)) => Err(incomplete()),
        Err(_) => Err(too_slow()),
    }
}

/// Reads and discards the body of a request that needs none. hyper does not notice that a client disconnects until the
/// body is read.
///
/// # Errors
/// The same as for [`collect`].
pub(super) async fn discard(mut body: RequestBody) -> Result<(), Response> {
    let read = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| incomplete())?;
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

fn too_large(max: usize) -> Response {
    error(StatusCode::PAYLOAD_TOO_LARGE, &format!("The body is larger than {max} bytes"))
}

fn incomplete() -> Response {
    error(StatusCode::BAD_REQUEST, "The body is incomplete")
}

fn too_slow() -> Response {
    error(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time")
}
