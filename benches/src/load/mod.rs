//! The load generator: clients, exact latencies, and groups to try them on.

pub mod catch_up;
pub mod command;
pub mod engines;
pub mod fail_over;
pub mod fleet;
pub mod generator;
pub mod group;
pub mod growth;
pub mod idle;
pub mod limits;
pub mod paused;
pub mod plot;
pub mod process;
pub mod pulse;
pub mod relay;
pub mod replica;
pub mod restarts;
pub mod row;
pub mod service;
pub mod soak;
pub mod summary;
pub mod workload;
