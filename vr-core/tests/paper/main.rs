//! Rules of the paper and of docs/PROTOCOL.md, restated against one replica: inputs in, outputs
//! compared. The doc of each test names its rule.

mod batches;
mod checkpoints;
mod force;
mod full_log;
mod genesis;
mod handoff;
mod limits;
mod on_disk;
mod outputs;
mod recovery;
mod repair;
mod s4_1;
mod s4_2;
mod s4_2_votes;
mod s4_3;
mod s5_2;
mod s5_2_chunks;
mod s6_3;
mod sessions;
mod statuses;
mod subject;
mod timers;
