//! RFC 6455 on the hot path: reading frames out of a shared buffer, and the headers of the frames that go out.
//!
//! Opcodes, masks and close codes are fastwebsockets'. Its reader is not used: it keeps 8 KiB per socket from birth,
//! reserves a frame's claimed length before the data arrives, and bounds single frames but not fragmented messages.

pub(crate) mod handshake;
pub mod reader;
pub mod writer;

pub use reader::{Incoming, Reader, WireError};
