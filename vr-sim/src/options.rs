//! Everything that decides how a simulation goes, besides what a scenario does by hand.

use core::time::Duration;
use std::path::PathBuf;

use vr_core::{Config, Durability};

use crate::{disk::faults::DiskFaults, network::faults::NetworkFaults, state_disk::StatePlace};

/// How a simulated group is made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// How many replicas the group has.
    pub replicas: u64,
    /// What all chance is drawn from.
    pub seed: u64,
    /// The replicas' and clients' limits and timeouts.
    pub config: Config,
    /// The mode that the group runs in.
    pub durability: Durability,
    /// What happens to messages by chance.
    pub network: NetworkFaults,
    /// What happens to all disks by chance.
    pub disk: DiskFaults,
    /// How long a client waits for a reply before it gives up.
    pub client_timeout: Duration,
    /// Where the replicas' state is.
    pub state: StatePlace,
    /// Bytes that snapshots are larger by, up to four times as many, so that they take several chunks.
    pub padding: u32,
    /// Whether each life of a replica draws anew if it compresses checkpoints; all do as the
    /// configuration says otherwise.
    pub mixed_compression: bool,
    /// Whether every envelope travels as bytes.
    pub codec: bool,
    /// Where the whole trace goes when the group is dropped, also when that is by a panic: a page
    /// if the name ends in `.html`, text otherwise; `None` keeps only the last events.
    pub trace: Option<PathBuf>,
}

impl GroupOptions {
    /// A group of `replicas` without mishaps.
    #[must_use]
    pub fn of(replicas: u64) -> Self {
        Self {
            replicas,
            seed: 0,
            config: Config::default(),
            durability: Durability::Full,
            network: NetworkFaults::none(),
            disk: DiskFaults::none(),
            client_timeout: Duration::from_secs(10),
            state: StatePlace::Memory,
            padding: 0,
            mixed_compression: false,
            codec: true,
            trace: None,
        }
    }

    /// The same with another seed.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same in another mode.
    #[must_use]
    pub const fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The same with `config`.
    #[must_use]
    pub fn with_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }
}
