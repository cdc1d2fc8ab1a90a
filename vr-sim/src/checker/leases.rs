//! O8: while a primary holds its lease, no later view starts.

use core::time::Duration;

use vr_core::model::types::{ReplicaId, View};

use crate::checker::{Verdict, Violation};

/// The primary `replica` of `view` would answer reads by itself for another `leased_for`, and
/// `started` is the latest view that has started anywhere.
///
/// # Errors
/// When both at once are true of different views.
pub fn check(replica: ReplicaId, view: View, leased_for: Duration, started: View) -> Verdict {
    if leased_for.is_zero() || started <= view {
        return Ok(());
    }
    Err(Violation::new(
        "O8",
        "no view starts while the primary of an earlier one holds its lease",
        format!("view {started} started, and r{replica} has {leased_for:?} left in view {view}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_must_have_ended_before_a_later_view_starts() {
        let found = |view, left| check(ReplicaId(0), View(view), left, View(3));
        assert_eq!(found(2, Duration::ZERO), Ok(()));
        assert_eq!(found(3, Duration::from_millis(1)), Ok(()));
        assert!(found(2, Duration::from_millis(1)).is_err());
    }
}
