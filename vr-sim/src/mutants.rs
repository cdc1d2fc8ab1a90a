//! Plants one of vr-core's mutants in every group that a piece of code makes.

use core::cell::Cell;

use vr_core::model::mutants::{Mutant, Mutants};

use crate::{disk::faults::StorageBugs, options::GroupOptions};

thread_local! {
    /// What groups made on this thread are planted with.
    static PLANTED: Cell<Mutants> = Cell::default();
}

/// Takes the mutants away again, also when what ran with them panicked.
struct Uproot(Mutants);

impl Drop for Uproot {
    fn drop(&mut self) {
        PLANTED.set(self.0);
    }
}

/// Runs `story`; all replicas of the groups that it makes break the rule that `mutant` names.
pub fn plant<T>(mutant: Mutant, story: impl FnOnce() -> T) -> T {
    let _uproot = Uproot(PLANTED.replace(Mutants::only(mutant)));
    story()
}

/// The options of a group that is made now.
pub(crate) fn planted_in(mut options: GroupOptions) -> GroupOptions {
    options.config.mutants = PLANTED.get();
    options
}

/// What the mutants that are about storage do to it.
pub(crate) fn storage_bugs(mutants: Mutants) -> StorageBugs {
    let unsynced = [(Mutant::LogNotSynced, "wal-"), (Mutant::SuperblockNotSynced, "superblock-")];
    let unsynced = unsynced.into_iter().find(|(mutant, _)| mutants.contain(*mutant));
    StorageBugs {
        unsynced: unsynced.map(|(_, prefix)| prefix),
        goes_on_after_error: mutants.contain(Mutant::SyncErrorIgnored),
        superblock_first: mutants.contain(Mutant::SuperblockBeforeLog),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_is_gone_after_its_story() {
        let planted = || planted_in(GroupOptions::of(3)).config.mutants;
        assert!(plant(Mutant::NoViewSync, planted).contain(Mutant::NoViewSync));
        assert!(planted().are_none());
    }
}
