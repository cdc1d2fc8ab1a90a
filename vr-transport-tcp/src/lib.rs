//! TCP transport and tokio runtime for `vr-core`.
//!
//! ```no_run
//! # async fn example() -> Result<(), vr_core::TransportError> {
//! use vr_transport_tcp::{TcpTransport, TokioRuntime};
//!
//! let replica = TcpTransport::bind("0.0.0.0:7000").await?;
//! let client = TcpTransport::client();
//! let runtime = TokioRuntime::current();
//! # drop((replica, client, runtime));
//! # Ok(())
//! # }
//! ```

mod busy;
mod complaints;
mod config;
mod connection;
mod dialer;
mod end;
mod frame;
mod handshake;
mod listener;
mod peers;
mod ready;
mod repeated;
mod runtime;
mod socket;
#[cfg(test)]
mod tests;
mod transport;

pub use crate::{config::TcpConfig, runtime::TokioRuntime, transport::TcpTransport};
