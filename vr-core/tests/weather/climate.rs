//! What the network and the disks are like.

/// What the network and the disks are like.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) loss_percent: u64,
    pub(crate) double_percent: u64,
    /// Longest way of a message, in microseconds; most take a hundredth of it.
    pub(crate) delay_max: u64,
    /// Longest write, in microseconds.
    pub(crate) write_max: u64,
}

pub(crate) const FAIR: Weather =
    Weather { loss_percent: 0, double_percent: 0, delay_max: 400, write_max: 2000 };
pub(crate) const FOUL: Weather =
    Weather { loss_percent: 5, double_percent: 5, delay_max: 90_000, write_max: 60_000 };
