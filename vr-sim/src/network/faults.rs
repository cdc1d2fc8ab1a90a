//! What a simulated network does to messages on its own, and within which bounds.

use core::time::Duration;

use vr_core::model::{kind::Lane, time::nanoseconds};

use crate::prng::Prng;

/// Delays and mishaps of all links; probabilities are in millionths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFaults {
    /// The shortest time that a message is on its way.
    pub latency_min: Duration,
    /// The longest time that an ordinary message is on its way.
    pub latency_max: Duration,
    /// How many messages take longer than that.
    pub slow: u32,
    /// The longest time that a slow message is on its way.
    pub slow_max: Duration,
    /// How many messages vanish.
    pub loss: u32,
    /// How many messages arrive twice.
    pub duplicate: u32,
    /// How many messages may overtake, or be overtaken on, their lane.
    pub reorder: u32,
    /// How many messages of one lane a link holds; the next one is refused as backpressure.
    pub lane_messages_max: u32,
    /// How long a broken connection stays broken.
    pub redial: Duration,
    /// How long a link is busy with a kilobyte; control does not wait for data, nor data for bulk.
    pub kilobyte: Duration,
}

impl NetworkFaults {
    /// A network without mishaps: one millisecond, in order.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(1),
            slow: 0,
            slow_max: Duration::ZERO,
            loss: 0,
            duplicate: 0,
            reorder: 0,
            lane_messages_max: 10_000,
            redial: Duration::from_millis(20),
            kilobyte: Duration::ZERO,
        }
    }

    /// Mishaps as `rng` draws them; some runs get none of a sort, so that the others stand out.
    pub fn drawn(rng: &mut Prng) -> Self {
        let latency_min = Duration::from_micros(rng.between(50, 1000));
        let mut sometimes = |millionths_max| match rng.below(3) {
            0 => 0,
            1 => u32::try_from(rng.below(millionths_max / 10 + 1)).unwrap_or(0),
            _ => u32::try_from(rng.below(millionths_max)).unwrap_or(0),
        };
        let (slow, loss) = (sometimes(20_000), sometimes(100_000));
        let (duplicate, reorder) = (sometimes(100_000), sometimes(500_000));
        Self {
            latency_min,
            latency_max: latency_min + Duration::from_micros(rng.below(5000)),
            slow,
            slow_max: Duration::from_millis(rng.between(20, 2000)),
            loss,
            duplicate,
            reorder,
            redial: Duration::from_millis(rng.between(1, 100)),
            ..Self::none()
        }
    }

    /// The same, on links that are as narrow as `rng` says: down to a megabyte a second.
    #[must_use]
    pub fn narrowed(self, rng: &mut Prng) -> Self {
        let kilobyte = Duration::from_micros(rng.below(1000));
        if rng.below(3) == 0 { Self { kilobyte, ..self } } else { self }
    }

    /// How long a link is busy with so many bytes.
    pub(crate) fn busy(&self, bytes: u64) -> Duration {
        let nanoseconds = nanoseconds(self.kilobyte).saturating_mul(bytes) / 1024;
        Duration::from_nanos(nanoseconds)
    }

    /// How long the next message is on its way.
    pub(crate) fn delay(&self, rng: &mut Prng) -> Duration {
        let max = if rng.chance(self.slow) { self.slow_max } else { self.latency_max };
        if max <= self.latency_min {
            return self.latency_min;
        }
        Duration::from_nanos(rng.between(nanoseconds(self.latency_min), nanoseconds(max)))
    }
}

/// A lane's place in an array of three.
pub(crate) const fn lane_position(lane: Lane) -> usize {
    match lane {
        Lane::Control => 0,
        Lane::Data => 1,
        Lane::Bulk => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_their_bounds() {
        for seed in 0..50 {
            let mut rng = Prng::new(seed);
            let faults = NetworkFaults::drawn(&mut rng);
            for _ in 0..100 {
                let delay = faults.delay(&mut rng);
                assert!(delay >= faults.latency_min);
                assert!(delay <= faults.latency_max.max(faults.slow_max));
            }
        }
    }
}
