//! O3: a view starts with one log, and everyone who installs it installs that one.

use std::collections::{BTreeMap, btree_map::Entry};

use vr_core::model::{
    membership::Membership,
    message::StartView,
    types::{Checksum, OpNumber, ReplicaId, View},
};

use crate::checker::{Verdict, Violation, durability::Shadow};

/// The log that each view started with: what its primary had made durable when it moved its log
/// view there.
#[derive(Debug)]
pub struct Starts {
    membership: Membership,
    heads: BTreeMap<View, (OpNumber, Checksum)>,
    /// The log view that each replica was last seen to install. What becomes of the log under it
    /// later is no installation: a crash between the two parts of the next one leaves the log of
    /// a later view under this log view, and NP4 permits that.
    installed: BTreeMap<ReplicaId, View>,
}

impl Starts {
    /// No view has started yet in the group of `membership`.
    #[must_use]
    pub const fn new(membership: Membership) -> Self {
        Self { membership, heads: BTreeMap::new(), installed: BTreeMap::new() }
    }

    /// `replica` was given a log and the promise to `view`, which is no start of it.
    pub fn given(&mut self, replica: ReplicaId, view: View) {
        self.installed.insert(replica, view);
    }

    /// The latest view that has started; the first one, if none has.
    #[must_use]
    pub fn latest(&self) -> View {
        self.heads.last_key_value().map_or(View::ZERO, |(view, _)| *view)
    }

    /// `replica` made something durable; true when that starts a view.
    ///
    /// # Errors
    /// When its log view is one whose start its log does not contain.
    pub fn stored(
        &mut self,
        replica: ReplicaId,
        shadow: &Shadow,
        contains: impl Fn((OpNumber, Checksum), (OpNumber, Checksum)) -> bool,
    ) -> Result<bool, Violation> {
        let view = shadow.log_view;
        if self.installed.insert(replica, view) == Some(view) || view == View::ZERO {
            return Ok(false);
        }
        let Some((op_number, head)) = self.heads.get(&view).copied() else {
            if self.membership.primary_of(view) != replica {
                return broken(format!("r{replica} installed view {view}, which never started"));
            }
            self.heads.insert(view, shadow.head());
            return Ok(true);
        };
        let there = match shadow.starts_after(op_number) {
            false => shadow.checksum_at(op_number) == Some(head),
            true => contains(shadow.head(), (op_number, head)),
        };
        if op_number > OpNumber::ZERO && !there {
            return broken(format!("r{replica} has log view {view} without its op {op_number}"));
        }
        Ok(false)
    }

    /// The primary of `start.view` sent `start`, at the start or later.
    ///
    /// # Errors
    /// When it does not contain what the view started with.
    pub fn sent(&self, replica: ReplicaId, start: &StartView) -> Verdict {
        let Some((op_number, head)) = self.heads.get(&start.view).copied() else { return Ok(()) };
        let there = if op_number == OpNumber::ZERO {
            None
        } else if start.op_number == op_number {
            Some(start.head)
        } else {
            let mut suffix = start.suffix.iter();
            suffix.find(|header| header.op_number == op_number).map(|header| header.checksum)
        };
        if start.op_number < op_number || there.is_some_and(|there| there != head) {
            let (view, now) = (start.view, start.op_number);
            broken(format!(
                "r{replica} announced view {view} with op {now}, after op {op_number}"
            ))?;
        }
        Ok(())
    }

    /// The primary of `view` announced it, with the log that ends at `head`; true when that is the
    /// first one hears of it.
    pub fn announced(&mut self, view: View, head: (OpNumber, Checksum)) -> bool {
        match self.heads.entry(view) {
            Entry::Vacant(start) => {
                start.insert(head);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// `replica` acknowledged in `view` a log that ends at `head`; `contains` knows which entries
    /// are in a log.
    ///
    /// # Errors
    /// When what the view started with is not in it.
    pub fn acknowledged(
        &self,
        replica: ReplicaId,
        view: View,
        head: (OpNumber, Checksum),
        contains: impl Fn((OpNumber, Checksum), (OpNumber, Checksum)) -> bool,
    ) -> Verdict {
        let Some(start) = self.heads.get(&view).copied() else { return Ok(()) };
        if head.0 >= start.0 && !contains(head, start) {
            broken(format!("r{replica} acknowledged view {view} without its op {}", start.0))?;
        }
        Ok(())
    }

    /// The views above `view` that have started, with the heads of their logs.
    pub fn after(&self, view: View) -> impl Iterator<Item = (View, (OpNumber, Checksum))> {
        self.heads.range(view.next()..).map(|(view, head)| (*view, *head))
    }

    /// How many views have started, the founding one not counted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.heads.len()
    }
}

const fn broken(found: String) -> Result<bool, Violation> {
    Err(Violation::new("O3", "a view has one start", found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts() -> Starts {
        Starts::new(Membership::new((0..3).map(ReplicaId)).unwrap())
    }

    #[test]
    fn the_primary_starts_its_view_and_backups_follow() {
        let mut starts = starts();
        assert_eq!(starts.stored(ReplicaId(1), &Shadow::empty_in(View(1)), |_, _| false), Ok(true));
        assert_eq!(
            starts.stored(ReplicaId(2), &Shadow::empty_in(View(1)), |_, _| false),
            Ok(false)
        );
        assert_eq!((starts.count(), starts.after(View(0)).count()), (1, 1));
    }

    #[test]
    fn a_view_that_nobody_started_is_not_installed() {
        assert_eq!(
            starts()
                .stored(ReplicaId(2), &Shadow::empty_in(View(1)), |_, _| false)
                .unwrap_err()
                .oracle,
            "O3"
        );
    }
}
