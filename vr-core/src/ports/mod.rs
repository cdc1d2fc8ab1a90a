//! Floor 2: what the engine's embedder brings, as four traits.

pub mod runtime;
pub mod state_machine;
pub mod storage;
pub mod transport;
