//! Deterministic simulation of `vr-core` groups: real nodes under virtual time, on a network and
//! disks that misbehave by seed or by hand.

pub mod actor;
pub mod check;
pub mod checker;
pub mod cluster;
pub mod disk;
pub mod executor;
pub mod linearizability;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod network;
pub mod observer;
pub mod options;
pub mod prng;
pub mod runtime;
pub mod simulator;
pub mod state_disk;
pub mod storage;
pub mod trace;
pub mod witness;
pub mod workload;

pub use crate::check::{check, check_with, outcome::Outcome, sim::Sim};
