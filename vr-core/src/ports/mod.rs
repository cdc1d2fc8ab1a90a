//! Floor 2: what the engine's embedder brings, as five traits.

pub mod runtime;
pub mod state_machine;
pub mod storage;
pub mod transport;
