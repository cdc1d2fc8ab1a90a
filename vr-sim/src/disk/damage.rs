//! Disks that lie: bits rot, writes are lost or land elsewhere, and nobody is told.
//!
//! Damage is done to what is durable already, as it would have been done by the write itself. Only
//! places are damaged behind which something younger is durable in the same file: of a log, the
//! younger record proves that the older one was synced, so that the damage can be noticed. That is
//! the line between damage that [`Durability::Full`](vr_core::Durability::Full) promises to survive
//! and a disk whose syncs mean nothing.

use std::collections::VecDeque;

use crate::{
    disk::content::{Content, SECTOR_BYTES, length_of},
    prng::Prng,
};

/// Writes that can still be damaged, per disk.
const LANDED_MAX: usize = 64;

/// What a disk does to a write that it said was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit turns over.
    Rot,
    /// The write never reached the platters: what was there before is there.
    Lost,
    /// The write landed in another place of the same file, and what was in its own is still there.
    Misdirected,
}

impl Damage {
    /// All sorts of damage.
    pub const ALL: [Self; 3] = [Self::Rot, Self::Lost, Self::Misdirected];
}

/// A write that became durable, with what it replaced.
#[derive(Debug)]
struct Landed {
    file: u64,
    offset: u64,
    before: Vec<u8>,
    bytes: Vec<u8>,
}

impl Landed {
    fn end(&self) -> u64 {
        self.offset.saturating_add(length_of(&self.bytes))
    }

    fn is_still_there(&self, content: &Content) -> bool {
        let mut now = vec![0; self.bytes.len()];
        content.read(self.offset, &mut now);
        now == self.bytes
    }
}

/// The last writes that became durable, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    landed: VecDeque<Landed>,
}

impl History {
    /// Remembers a write that is about to become part of `content`.
    ///
    /// Sectors of zeros at its end are padding: the next write takes their place, and has not
    /// replaced this one by that.
    pub(crate) fn remember(&mut self, file: u64, content: &Content, offset: u64, bytes: &[u8]) {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1);
        let sector = usize::try_from(SECTOR_BYTES).unwrap_or(usize::MAX);
        let bytes = bytes.get(..used.next_multiple_of(sector)).unwrap_or(bytes);
        let mut before = vec![0; bytes.len()];
        content.read(offset, &mut before);
        if self.landed.len() == LANDED_MAX {
            self.landed.pop_front();
        }
        self.landed.push_back(Landed { file, offset, before, bytes: bytes.to_vec() });
    }

    pub(crate) fn forget(&mut self) {
        self.landed.clear();
    }

    /// Damages one write, which `rng` draws, to `file`, which holds `content`; false when there is
    /// none that can be.
    pub(crate) fn damage(
        &self,
        damage: Damage,
        file: u64,
        content: &mut Content,
        rng: &mut Prng,
    ) -> bool {
        let here: Vec<&Landed> = self.landed.iter().filter(|landed| landed.file == file).collect();
        let there: Vec<&&Landed> = here.iter().filter(|one| one.is_still_there(content)).collect();
        let covered = |one: &Landed| there.iter().any(|other| other.offset >= one.end());
        let candidates: Vec<&Landed> =
            there.iter().map(|one| **one).filter(|one| covered(one)).collect();
        let Some(chosen) = rng.pick(&candidates) else { return false };
        match damage {
            Damage::Rot => {
                // What stands in the first sector is rarely padding.
                let place = rng.below(length_of(&chosen.bytes).clamp(1, SECTOR_BYTES));
                let bit = u8::try_from(rng.below(8)).unwrap_or(0);
                content.flip(chosen.offset + place, bit)
            }
            Damage::Lost => undo(chosen, content),
            Damage::Misdirected => {
                let end = here.iter().map(|landed| landed.end()).max().unwrap_or(0);
                let elsewhere = end.next_multiple_of(SECTOR_BYTES) + SECTOR_BYTES * rng.below(8);
                let fits = elsewhere.saturating_add(length_of(&chosen.bytes)) <= content.length;
                if fits {
                    content.write(elsewhere, &chosen.bytes);
                }
                undo(chosen, content)
            }
        }
    }
}

fn undo(landed: &Landed, content: &mut Content) -> bool {
    content.write(landed.offset, &landed.before);
    landed.before != landed.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sectors, one after the other, over zeros.
    fn two_writes() -> (History, Content) {
        let (mut history, mut content) = (History::default(), Content::default());
        content.fill(16_384);
        for (offset, byte) in [(0, 1), (512, 2)] {
            let bytes = [byte; 512];
            history.remember(7, &content, offset, &bytes);
            content.write(offset, &bytes);
        }
        (history, content)
    }

    fn sector(content: &Content, offset: u64) -> [u8; 512] {
        let mut bytes = [0; 512];
        content.read(offset, &mut bytes);
        bytes
    }

    #[test]
    fn only_a_write_with_a_younger_one_behind_it_is_damaged() {
        for damage in Damage::ALL {
            for seed in 0..50 {
                let (history, mut content) = two_writes();
                assert!(history.damage(damage, 7, &mut content, &mut Prng::new(seed)));
                assert_ne!(sector(&content, 0), [1; 512]);
                assert_eq!(sector(&content, 512), [2; 512]);
            }
        }
    }

    #[test]
    fn a_lost_write_leaves_what_was_there_before() {
        let (history, mut content) = two_writes();
        assert!(history.damage(Damage::Lost, 7, &mut content, &mut Prng::new(1)));
        assert_eq!(sector(&content, 0), [0; 512]);
    }

    #[test]
    fn a_misdirected_write_lands_behind_all_others() {
        let (history, mut content) = two_writes();
        assert!(history.damage(Damage::Misdirected, 7, &mut content, &mut Prng::new(1)));
        let places = (2..32).filter(|place| sector(&content, place * 512) == [1; 512]);
        assert_eq!((sector(&content, 0), places.count()), ([0; 512], 1));
    }

    #[test]
    fn rot_is_one_bit() {
        let (history, mut content) = two_writes();
        assert!(history.damage(Damage::Rot, 7, &mut content, &mut Prng::new(1)));
        let changed: u32 = sector(&content, 0).iter().map(|byte| (byte ^ 1).count_ones()).sum();
        assert_eq!(changed, 1);
    }

    #[test]
    fn a_write_that_was_replaced_since_is_left_alone() {
        let (mut history, mut content) = two_writes();
        history.remember(7, &content, 0, &[3; 512]);
        content.write(0, &[3; 512]);
        let mut damaged = content.clone();
        assert!(history.damage(Damage::Lost, 7, &mut damaged, &mut Prng::new(1)));
        assert_eq!(sector(&damaged, 0), [1; 512]);
    }

    #[test]
    fn a_write_whose_padding_was_replaced_is_still_there() {
        let (mut history, mut content) = (History::default(), Content::default());
        content.fill(16_384);
        for (offset, byte) in [(0, 1), (512, 2)] {
            let bytes = [[byte; 512], [0; 512], [0; 512]].concat();
            history.remember(7, &content, offset, &bytes);
            content.write(offset, &bytes);
        }
        assert!(history.damage(Damage::Lost, 7, &mut content, &mut Prng::new(1)));
        assert_eq!((sector(&content, 0), sector(&content, 512)), ([0; 512], [2; 512]));
    }

    #[test]
    fn another_file_has_nothing_to_be_damaged() {
        let (history, mut content) = two_writes();
        assert!(!history.damage(Damage::Lost, 8, &mut content, &mut Prng::new(1)));
    }
}
