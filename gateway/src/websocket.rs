//! The WebSocket protocol, RFC 6455: the opening handshake, a frame reader and a frame writer.
//!
//! Opcodes, masks and close codes are those of fastwebsockets. Its reader is not used. It allocates 8 KiB for each
//! socket and reserves the announced length of a frame before the data arrives. It does not limit the size of
//! fragmented messages.

pub(crate) mod handshake;
pub mod reader;
pub mod writer;

pub use reader::{Incoming, Reader, WireError};
