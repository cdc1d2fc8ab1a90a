//! Which disks may lie in a run, so that the group can still do what its durability mode promises.

use core::fmt;
use std::str::FromStr;

use vr_core::model::types::ReplicaId;

use crate::prng::Prng;

/// How far damage to disks goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// No disk lies.
    None,
    /// In some runs, as many disks lie as the group can do without.
    #[default]
    Within,
    /// Any disk may lie in any run; then only safety is required.
    Beyond,
}

impl FromStr for Reach {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "within" => Ok(Self::Within),
            "beyond" => Ok(Self::Beyond),
            other => Err(format!("'{other}' is none of none, within, beyond")),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Within => "within",
            Self::Beyond => "beyond",
        })
    }
}

/// The map of the damage that a run may do. A damaged log is repaired from the others, so all but a
/// quorum of the logs may be damaged at any time; a copy of a superblock may rot anywhere.
#[derive(Debug)]
pub(super) struct Atlas {
    pub(super) rng: Prng,
    /// Whose logs may be damaged.
    pub(super) mortal: Vec<ReplicaId>,
    /// Whether superblocks rot.
    pub(super) superblocks: bool,
    /// Damage that was done.
    pub(super) done: u64,
}

impl Atlas {
    pub(super) fn drawn(mut rng: Prng, reach: Reach, replicas: &[ReplicaId]) -> Self {
        let spare = replicas.len().saturating_sub(1) / 2;
        let lies = rng.below(2) == 0;
        let mut mortal = replicas.to_vec();
        let mortals = match reach {
            Reach::Within if lies => rng.position(spare + 1),
            Reach::None | Reach::Within => 0,
            Reach::Beyond => mortal.len(),
        };
        while mortal.len() > mortals {
            mortal.swap_remove(rng.position(mortal.len()));
        }
        let superblocks = match reach {
            Reach::None => false,
            Reach::Within | Reach::Beyond => rng.below(2) == 0,
        };
        Self { rng, mortal, superblocks, done: 0 }
    }

    /// Whether no log of this replica is damaged in this run.
    pub(super) fn spares(&self, replica: ReplicaId) -> bool {
        !self.mortal.contains(&replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mortals(seed: u64, reach: Reach, replicas: u64) -> usize {
        let ids: Vec<ReplicaId> = (0..replicas).map(ReplicaId).collect();
        Atlas::drawn(Prng::new(seed), reach, &ids).mortal.len()
    }

    #[test]
    fn within_its_reach_damage_leaves_a_quorum() {
        let most = |reach, replicas| (0..200).map(|seed| mortals(seed, reach, replicas)).max();
        assert_eq!(most(Reach::None, 5), Some(0));
        assert_eq!(most(Reach::Within, 3), Some(1));
        assert_eq!(most(Reach::Within, 4), Some(1));
        assert_eq!(most(Reach::Within, 5), Some(2));
        assert_eq!(most(Reach::Beyond, 5), Some(5));
    }

    #[test]
    fn a_reach_is_read_as_it_is_written() {
        for reach in [Reach::None, Reach::Within, Reach::Beyond] {
            assert_eq!(reach.to_string().parse(), Ok(reach));
        }
        assert!("far".parse::<Reach>().is_err());
    }
}
