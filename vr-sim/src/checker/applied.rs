//! O4: all replicas apply the same operations at the same places with the same replies.

use core::ops::Bound;
use std::collections::BTreeMap;

use vr_core::model::types::{ClientId, OpNumber, ReplicaId, View};

use crate::checker::{Verdict, Violation};

/// What a replica applied, as its state machine saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The view that gave the operation its place.
    pub view: View,
    /// Its place among the operations of one entry.
    pub position: u32,
    /// Who asked.
    pub client: ClientId,
    /// The time the state machine was told, in nanoseconds since 1970.
    pub time: u64,
    /// The harness's number for the call.
    pub tag: u64,
    /// Hash of the operation's bytes.
    pub operation: u64,
    /// Hash of the reply's bytes.
    pub reply: u64,
}

/// Where an operation stands: its op, and its place among the operations of one entry.
type Place = (OpNumber, u32);

/// The one history that all replicas must apply.
#[derive(Debug, Default)]
pub struct Applied {
    history: BTreeMap<Place, Record>,
    through: BTreeMap<ReplicaId, Place>,
}

impl Applied {
    /// A new life of `replica` begins with nothing applied.
    pub fn restarted(&mut self, replica: ReplicaId) {
        self.through.remove(&replica);
    }

    /// What is in the checkpoint after `base`, as the only thing that anybody goes on from.
    #[must_use]
    pub fn up_to(mut self, base: OpNumber) -> Self {
        self.history.retain(|(op_number, _), _| *op_number <= base);
        self.through.clear();
        self
    }

    /// `replica` goes on from the state of a checkpoint, in which `op_number` is the last operation.
    ///
    /// # Errors
    /// When that was never applied anywhere.
    pub fn restored(&mut self, replica: ReplicaId, op_number: OpNumber) -> Verdict {
        let Some(place) = self.end_of(op_number) else {
            return broken(format!("r{replica} restored op {op_number}, which nobody applied"));
        };
        self.through.insert(replica, place);
        Ok(())
    }

    /// `replica` has a state in which `op_number` is the last operation. Who goes on from one that no
    /// group ever was in is found out with the next operation.
    pub fn found(&mut self, replica: ReplicaId, op_number: OpNumber) {
        if let Some(place) = self.end_of(op_number) {
            self.through.insert(replica, place);
        }
    }

    /// The place of the last operation at `op_number`, if any was applied there; that of op 0, the
    /// empty state, is there always.
    fn end_of(&self, op_number: OpNumber) -> Option<Place> {
        let last = self.history.range(..=(op_number, u32::MAX)).next_back();
        let place = last.map_or_else(Place::default, |(place, _)| *place);
        (place.0 == op_number).then_some(place)
    }

    /// `replica` applied `record` at `op_number`.
    ///
    /// # Errors
    /// When another replica applied something else there, when an operation was passed over, or
    /// when time did not grow.
    pub fn applied(&mut self, replica: ReplicaId, op_number: OpNumber, record: Record) -> Verdict {
        let place = (op_number, record.position);
        let before = self.through.insert(replica, place).unwrap_or_default();
        if place <= before {
            return broken(format!("r{replica} applied op {op_number} after op {}", before.0));
        }
        let passed_over = (Bound::Excluded(before), Bound::Excluded(place));
        if let Some(((missing, _), _)) = self.history.range(passed_over).next() {
            return broken(format!("r{replica} applied op {op_number} and never op {missing}"));
        }
        if record.position > 0 && before != (op_number, record.position - 1) {
            return broken(format!("r{replica} applied op {op_number} in part"));
        }
        match self.history.get(&place) {
            Some(known) if *known != record => {
                broken(format!("r{replica} applied {record:?} at op {op_number}, not {known:?}"))
            }
            Some(_) => Ok(()),
            None => self.applied_first(replica, op_number, record),
        }
    }

    fn applied_first(
        &mut self,
        replica: ReplicaId,
        op_number: OpNumber,
        record: Record,
    ) -> Verdict {
        let place = (op_number, record.position);
        let ahead = self.through.iter().find(|(_, through)| **through > place);
        if let Some((other, (through, _))) = ahead {
            return broken(format!(
                "r{replica} applied op {op_number}, which r{other} passed over on its way to {through}"
            ));
        }
        if let Some(((last, _), known)) = self.history.last_key_value()
            && (known.time > record.time || (known.time == record.time && *last < op_number))
        {
            return broken(format!(
                "op {op_number} has time {}, op {last} before it {}",
                record.time, known.time
            ));
        }
        self.history.insert(place, record);
        Ok(())
    }

    /// What was applied anywhere, in order.
    #[must_use]
    pub fn history(&self) -> impl DoubleEndedIterator<Item = (OpNumber, &Record)> {
        self.history.iter().map(|((op_number, _), record)| (*op_number, record))
    }

    /// The last operation that `replica` applied in this life.
    #[must_use]
    pub fn through(&self, replica: ReplicaId) -> OpNumber {
        self.through.get(&replica).copied().unwrap_or_default().0
    }
}

const fn broken(found: String) -> Verdict {
    Err(Violation::new("O4", "all replicas apply one history", found))
}

#[cfg(test)]
mod tests {
    use super::*;

    const R0: ReplicaId = ReplicaId(0);
    const R1: ReplicaId = ReplicaId(1);

    fn record(tag: u64) -> Record {
        let (view, client) = (View(0), ClientId(1));
        Record { view, position: 0, client, time: tag, tag, operation: tag, reply: tag }
    }

    fn after(steps: &[(ReplicaId, u64, u64)]) -> Verdict {
        let mut applied = Applied::default();
        steps.iter().try_for_each(|(r, op, tag)| applied.applied(*r, OpNumber(*op), record(*tag)))
    }

    #[test]
    fn one_history_with_holes_for_what_no_state_machine_sees_is_fine() {
        assert_eq!(after(&[(R0, 2, 1), (R0, 5, 2), (R1, 2, 1), (R1, 5, 2)]), Ok(()));
    }

    #[test]
    fn another_operation_at_the_same_place_is_noticed() {
        assert!(after(&[(R0, 2, 1), (R1, 2, 7)]).is_err());
    }

    #[test]
    fn an_operation_passed_over_is_noticed_whoever_comes_first() {
        assert!(after(&[(R0, 2, 1), (R0, 3, 2), (R1, 3, 2)]).is_err());
        assert!(after(&[(R0, 3, 2), (R1, 2, 1)]).is_err());
    }

    #[test]
    fn applying_twice_in_one_life_is_noticed() {
        assert!(after(&[(R0, 2, 1), (R0, 2, 1)]).is_err());
    }

    #[test]
    fn a_restored_state_passes_over_what_was_applied_elsewhere_and_nothing_else() {
        let mut applied = Applied::default();
        for op in [1, 3, 4] {
            applied.applied(R0, OpNumber(op), record(op)).unwrap();
        }
        assert_eq!(applied.restored(R1, OpNumber(3)), Ok(()));
        assert_eq!(applied.applied(R1, OpNumber(4), record(4)), Ok(()));
        assert!(applied.restored(R1, OpNumber(9)).is_err());
    }

    #[test]
    fn whoever_goes_on_from_a_state_on_disk_repeats_nothing_and_passes_nothing_over() {
        let found = |found: u64, next: u64| {
            let mut applied = Applied::default();
            for op in [1, 3, 4, 5] {
                applied.applied(R0, OpNumber(op), record(op)).unwrap();
            }
            applied.found(R1, OpNumber(found));
            applied.applied(R1, OpNumber(next), record(next))
        };
        assert_eq!(found(3, 4), Ok(()));
        assert_eq!(found(0, 1), Ok(()));
        assert!(found(3, 3).is_err(), "applied again");
        assert!(found(3, 5).is_err(), "op 4 is passed over");
        assert!(found(9, 10).is_err(), "nobody was ever there");
    }

    #[test]
    fn several_operations_at_one_op_are_applied_in_order_and_all_of_them() {
        let mut applied = Applied::default();
        let mut apply = |replica, op, position, tag| {
            applied.applied(replica, OpNumber(op), Record { position, time: op, ..record(tag) })
        };
        assert_eq!((0..3).try_for_each(|n| apply(R0, 2, n, 7 + u64::from(n))), Ok(()));
        assert_eq!(apply(R0, 3, 0, 1), Ok(()));
        assert_eq!((0..2).try_for_each(|n| apply(R1, 2, n, 7 + u64::from(n))), Ok(()));
        assert!(apply(R1, 3, 0, 1).is_err(), "one of them is passed over");
        assert!(apply(R0, 4, 1, 1).is_err(), "the first of them is missing");
    }

    #[test]
    fn time_that_stands_still_is_noticed() {
        let mut applied = Applied::default();
        assert_eq!(applied.applied(R0, OpNumber(1), record(5)), Ok(()));
        assert!(applied.applied(R0, OpNumber(2), Record { time: 5, ..record(6) }).is_err());
    }
}
