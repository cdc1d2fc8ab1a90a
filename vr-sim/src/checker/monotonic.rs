//! Numbers that never decrease: promises over all lives of a replica, the rest within one.

use std::collections::BTreeMap;

use vr_core::model::types::{OpNumber, ReplicaId, View};

use crate::checker::{Verdict, Violation};

/// The highest numbers seen of each replica.
#[derive(Debug, Default)]
pub struct Monotonic {
    durable: BTreeMap<ReplicaId, (View, View)>,
    life: BTreeMap<ReplicaId, Numbers>,
}

/// What a replica says of itself within one life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Its view.
    pub view: View,
    /// The last op it knows to be committed.
    pub commit_number: OpNumber,
    /// The last op it executed.
    pub applied: OpNumber,
}

impl Monotonic {
    /// A new life of `replica` begins.
    pub fn restarted(&mut self, replica: ReplicaId) {
        self.life.remove(&replica);
    }

    /// The disk of `replica` was wiped: it has no past.
    pub fn wiped(&mut self, replica: ReplicaId) {
        self.durable.remove(&replica);
        self.restarted(replica);
    }

    /// `replica` made these views durable.
    ///
    /// # Errors
    /// When one of them is lower than before, or the log view is above the promise.
    pub fn stored(&mut self, replica: ReplicaId, view: View, log_view: View) -> Verdict {
        let (view_before, log_view_before) =
            self.durable.insert(replica, (view, log_view)).unwrap_or_default();
        if view < view_before || log_view < log_view_before || log_view > view {
            return broken(format!(
                "r{replica} stored view {view}, log view {log_view} after {view_before}, {log_view_before}"
            ));
        }
        Ok(())
    }

    /// `replica` says this of itself.
    ///
    /// # Errors
    /// When a number is lower than before in this life, or applied is above committed.
    pub fn says(&mut self, replica: ReplicaId, now: Numbers) -> Verdict {
        let before = self.life.insert(replica, now).unwrap_or_default();
        if now.view < before.view
            || now.commit_number < before.commit_number
            || now.applied < before.applied
            || now.applied > now.commit_number
        {
            return broken(format!("r{replica} went from {before:?} to {now:?}"));
        }
        Ok(())
    }
}

const fn broken(found: String) -> Verdict {
    Err(Violation::new("monotone", "views, commit and applied numbers never decrease", found))
}

#[cfg(test)]
mod tests {
    use super::*;

    const R0: ReplicaId = ReplicaId(0);

    #[test]
    fn a_promise_outlives_a_restart_and_not_a_wipe() {
        let mut numbers = Monotonic::default();
        assert_eq!(numbers.stored(R0, View(3), View(2)), Ok(()));
        numbers.restarted(R0);
        assert!(numbers.stored(R0, View(2), View(2)).is_err());
        numbers.wiped(R0);
        assert_eq!(numbers.stored(R0, View(0), View(0)), Ok(()));
    }

    #[test]
    fn a_commit_number_starts_again_only_in_a_new_life() {
        let says = |commit| Numbers { commit_number: OpNumber(commit), ..Numbers::default() };
        let mut numbers = Monotonic::default();
        assert_eq!(numbers.says(R0, says(5)), Ok(()));
        assert!(numbers.says(R0, says(4)).is_err());
        numbers.restarted(R0);
        assert_eq!(numbers.says(R0, says(1)), Ok(()));
    }

    #[test]
    fn what_is_applied_is_committed() {
        let numbers = Numbers { applied: OpNumber(1), ..Numbers::default() };
        assert!(Monotonic::default().says(R0, numbers).is_err());
    }
}
