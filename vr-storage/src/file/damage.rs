//! What does not verify in a log, and what became of it.

use core::fmt;

use vr_core::{OpNumber, ports::storage::DamagedRange};

use crate::file::record::BATCHES_START;

/// What became of a slot of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Whole, with the right checksums.
    Ok,
    /// Cut short by a crash before it was synced, so it was never acknowledged.
    Torn,
    /// Damaged after it was synced.
    Corrupt,
    /// Damaged, but replaced by a later batch; nothing is missing.
    Superseded,
    /// Damaged, and written again since with what another replica had.
    Repaired,
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Torn => "torn",
            Self::Corrupt => "CORRUPT",
            Self::Superseded => "superseded",
            Self::Repaired => "repaired",
        })
    }
}

/// Something in the log that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Torn, corrupt, superseded or repaired; never ok.
    pub state: SlotState,
    /// Name of the file.
    pub file: String,
    /// Where in it.
    pub at: u64,
    /// How many bytes are concerned.
    pub bytes: u64,
    /// First and last op concerned, where a batch header still tells.
    pub ops: Option<(OpNumber, OpNumber)>,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    /// Whether it is that of a segment's first page, which hides nothing and lasts until the page
    /// is written again.
    pub(crate) const fn is_of_first_page(&self) -> bool {
        self.at == 0 && self.bytes == BATCHES_START
    }
}

/// Tells damage that still hides something from damage that does not matter any more.
pub(crate) fn sort_damage(damage: &mut [Damage], damaged: &[DamagedRange], repairs: &[OpNumber]) {
    for one in damage.iter_mut().filter(|one| one.state == SlotState::Corrupt) {
        let Some((first, last)) = one.ops else {
            // Any other damage that took nothing from the log is none.
            if !one.is_of_first_page() {
                one.state = SlotState::Superseded;
            }
            continue;
        };
        let overlaps = |(from, to): (OpNumber, OpNumber)| from <= last && first <= to;
        let is_open = damaged.iter().any(|range| overlaps((range.first, range.through.op_number)));
        if is_open {
            continue;
        }
        let is_repaired = repairs.iter().any(|op| overlaps((*op, *op)));
        one.state = if is_repaired { SlotState::Repaired } else { SlotState::Superseded };
    }
}
