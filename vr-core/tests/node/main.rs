//! Nodes, clients and their in-process network, run under virtual time.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod clockwork;
mod driver;
mod export;
#[cfg(test)]
mod export_checkpoint;
mod findings;
mod flushes;
mod fork;
mod group;
mod lossy;
mod memory;
mod order;
mod service;
