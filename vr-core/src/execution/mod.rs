//! Floor 3: the executor, which owns the state machine and the client table.

pub mod checkpoint;
pub mod client_table;
pub mod executor;
mod outcome;
mod persistence;
#[cfg(test)]
mod tests;
pub mod transfer;
pub mod use_order;
pub mod work;
