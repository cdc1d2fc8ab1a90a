//! Floor 2: the parts that know facts; chapters of the engine make the decisions.

pub mod admitted;
pub mod checkpoints;
pub mod clock;
pub mod doubts;
pub mod early;
pub mod forwards;
pub mod incoming;
pub mod leases;
pub mod log;
pub mod pace;
pub mod peers;
pub mod pipeline;
pub mod plan;
pub mod prng;
pub mod progress;
pub mod promise;
pub mod rank;
pub mod reads;
pub mod rebuild;
pub mod repair;
pub mod routes;
pub mod runs;
pub mod status;
pub mod suspicions;
pub mod timers;
pub mod votes;
