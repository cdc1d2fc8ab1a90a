//! What a random run is made of, as far as the seed does not decide it.

use core::time::Duration;

use vr_core::Durability;

use crate::simulator::{atlas::Reach, faults::Faults};

/// What a random run is made of; the rest is drawn from the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Decides everything that these options leave open.
    pub seed: u64,
    /// How many replicas the group has.
    pub replicas: u64,
    /// The mode that the group runs in.
    pub durability: Durability,
    /// What may go wrong.
    pub faults: Faults,
    /// How long the storm lasts, in virtual time.
    pub storm: Duration,
    /// How far damage to disks goes, where disks are among the faults.
    pub damage: Reach,
    /// How the storm ends for the replicas that the group can do without.
    pub ending: Ending,
}

/// How the storm ends for a minority, before it ends for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It is down.
    #[default]
    Down,
    /// It is down, paused, cut off in one direction or both, or its disk stalls: every fault that
    /// it has then is there to stay.
    Haunted,
}

impl RunOptions {
    /// A run of three replicas with all faults.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            replicas: 3,
            durability: Durability::Full,
            faults: Faults::All,
            storm: Duration::from_secs(10),
            damage: Reach::Within,
            ending: Ending::Down,
        }
    }

    /// The command that repeats the run.
    #[must_use]
    pub fn command(&self) -> String {
        let Self { seed, replicas, durability, faults, storm, damage, ending } = self;
        let storm = storm.as_secs();
        let liveness = match ending {
            Ending::Down => "",
            Ending::Haunted => " --liveness",
        };
        let mode = match durability {
            Durability::Full => String::new(),
            Durability::ViewOnly | Durability::Diskless => format!(" --durability {durability}"),
        };
        format!(
            "cargo sim --seed {seed} --replicas {replicas} --faults {faults} --storm {storm} \
             --damage {damage}{mode}{liveness}"
        )
    }
}
