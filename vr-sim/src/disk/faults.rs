//! How long a simulated disk takes, how much it holds, and how often it fails.

use core::time::Duration;

use vr_core::model::time::nanoseconds;

use crate::prng::Prng;

/// Costs and mishaps of one disk; probabilities are in millionths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// The shortest time that a sync takes.
    pub sync_min: Duration,
    /// The longest time that an ordinary sync takes.
    pub sync_max: Duration,
    /// How many syncs take longer than that.
    pub slow: u32,
    /// The longest time that a slow sync takes.
    pub slow_max: Duration,
    /// How many writes fail.
    pub write_error: u32,
    /// How many syncs fail.
    pub sync_error: u32,
    /// Bytes that all files together can have.
    pub capacity: u64,
}

/// How a storage breaks its promises; it does so only when it carries a mutant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageBugs {
    /// Says that files whose names begin so are synced, and does not sync them.
    pub(crate) unsynced: Option<&'static str>,
    /// Takes a failed sync for a good one.
    pub(crate) goes_on_after_error: bool,
    /// Writes the superblock of a batch before its log part.
    pub(crate) superblock_first: bool,
}

impl StorageBugs {
    /// A storage that keeps its promises.
    pub(crate) const fn none() -> Self {
        Self { unsynced: None, goes_on_after_error: false, superblock_first: false }
    }
}

impl DiskFaults {
    /// A disk without mishaps, whose syncs take 200 microseconds.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            sync_min: Duration::from_micros(200),
            sync_max: Duration::from_micros(200),
            slow: 0,
            slow_max: Duration::ZERO,
            write_error: 0,
            sync_error: 0,
            capacity: u64::MAX,
        }
    }

    /// A disk as `rng` draws it: slower or faster, sometimes with long syncs, without errors.
    pub fn drawn(rng: &mut Prng) -> Self {
        let sync_min = Duration::from_micros(rng.between(20, 500));
        Self {
            sync_min,
            sync_max: sync_min + Duration::from_micros(rng.below(3000)),
            slow: if rng.below(2) == 0 { 0 } else { u32::try_from(rng.below(20_000)).unwrap_or(0) },
            slow_max: Duration::from_millis(rng.between(10, 500)),
            ..Self::none()
        }
    }

    /// How long the next sync takes.
    pub(crate) fn sync_cost(&self, rng: &mut Prng) -> Duration {
        let max = if rng.chance(self.slow) { self.slow_max } else { self.sync_max };
        if max <= self.sync_min {
            return self.sync_min;
        }
        Duration::from_nanos(rng.between(nanoseconds(self.sync_min), nanoseconds(max)))
    }
}
