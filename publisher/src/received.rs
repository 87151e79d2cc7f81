//! Request bodies: read after the signature was verified, otherwise counted and discarded.

use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use tokio::time::timeout;

use crate::api_error::ApiError;
use crate::limits::BODY_TIMEOUT;

/// The body of a request, with the part that was read.
pub(crate) struct Received<B> {
    unread: Option<B>,
    bytes: Bytes,
    /// The length that the client announced.
    announced: Option<u64>,
}

impl<B> Received<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub(crate) fn new(body: B) -> Self {
        let announced = body.size_hint().exact();
        Self { unread: Some(body), bytes: Bytes::new(), announced }
    }

    /// Reads the whole body of at most `max` bytes. Refuses a body with a larger announced length before its first
    /// byte.
    ///
    /// # Errors
    /// [`ApiError`] for the size or the arrival of the body.
    pub(crate) async fn read(&mut self, max: usize) -> Result<Bytes, ApiError> {
        let too_large = ApiError::BodyTooLarge { bytes: self.announced, max };
        if self.announced.is_some_and(|announced| announced > max as u64) {
            return Err(too_large);
        }
        let Some(body) = self.unread.take() else { return Ok(self.bytes.clone()) };
        match timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await {
            Ok(Ok(body)) => self.bytes = body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large),
            Ok(Err(_)) => return Err(ApiError::BodyBroken),
            Err(_) => return Err(ApiError::BodyTimeout),
        }
        Ok(self.bytes.clone())
    }

    /// Returns the most memory that reading the body takes, in bytes.
    pub(crate) fn bytes_max(&self, max: usize) -> usize {
        self.announced.and_then(|announced| usize::try_from(announced).ok()).unwrap_or(max).min(max)
    }

    /// Returns the size of the body in bytes, if it is known.
    pub(crate) fn size(&self) -> Option<u64> {
        let is_read = self.unread.is_none() && !self.bytes.is_empty();
        self.announced.or_else(|| is_read.then_some(self.bytes.len() as u64))
    }

    /// Returns the bytes that were read.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Checks whether no part of the body was read.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.is_some()
    }
}
