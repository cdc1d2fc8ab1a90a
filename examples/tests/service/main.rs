//! The key-value example: its state, its protocol, and its processes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

mod disk;
mod exactly_once;
mod history;
mod modes;
mod processes;
mod redis_tools;
mod relay;
mod rescue;
mod resp;
mod rot;
mod state;
mod storm;
mod teaching;
mod tracer;
