//! Exactly once: a call has one place in the history, and an acknowledged one keeps it (O5).

use std::collections::{BTreeMap, BTreeSet};

use vr_core::{ClientOutcome, model::types::OpNumber};

use crate::checker::{Verdict, Violation, applied::Record};

/// Where each call was executed, and what clients were told.
#[derive(Debug, Default)]
pub struct Once {
    executed: BTreeMap<u64, (OpNumber, u64)>,
    /// Calls that must never execute, because their clients were told so.
    refused: BTreeSet<u64>,
    acknowledged: u64,
}

impl Once {
    /// Some replica applied `record` at `op_number`.
    ///
    /// # Errors
    /// When the same call was executed at another place, or must not execute.
    pub fn applied(&mut self, op_number: OpNumber, record: &Record) -> Verdict {
        if self.refused.contains(&record.tag) {
            return Err(refused(record.tag));
        }
        let first = self.executed.entry(record.tag).or_insert((op_number, record.reply));
        if first.0 != op_number {
            let found = format!("call {} at op {} and op {op_number}", record.tag, first.0);
            return Err(Violation::new("O6", "a call is executed at most once", found));
        }
        Ok(())
    }

    /// A client was told that its call `tag` executed, with a reply of this hash.
    ///
    /// # Errors
    /// When no replica applied the call, or it replied something else.
    pub fn acknowledged(&mut self, tag: u64, reply: u64) -> Verdict {
        self.acknowledged += 1;
        match self.executed.get(&tag) {
            None => {
                let found = format!("call {tag} is acknowledged and was applied nowhere");
                Err(Violation::new("O5", "what is acknowledged was executed", found))
            }
            Some((op_number, known)) if *known != reply => {
                let found = format!("call {tag} at op {op_number} has another reply");
                Err(Violation::new("O6", "a client gets the reply of its own call", found))
            }
            Some(_) => Ok(()),
        }
    }

    /// A client was told that these calls, which it made as one, executed.
    ///
    /// # Errors
    /// When they do not stand at one op.
    pub fn together(&self, tags: &[u64]) -> Verdict {
        let mut places = tags.iter().map(|tag| self.place_of(*tag));
        let first = places.next().flatten();
        if places.all(|place| place == first) {
            return Ok(());
        }
        let found = format!("the calls {tags:?} stand at several ops");
        Err(Violation::new("O6", "operations of one call stand at one op", found))
    }

    /// A client was told what became of its call `tag`, which returned no reply.
    ///
    /// # Errors
    /// When that is not so.
    pub fn told(&mut self, tag: u64, outcome: ClientOutcome) -> Verdict {
        let executed = self.executed.contains_key(&tag);
        match outcome {
            ClientOutcome::Unknown => Ok(()),
            ClientOutcome::Executed if executed => Ok(()),
            ClientOutcome::Executed => {
                let found = format!("call {tag} was applied nowhere");
                Err(Violation::new("O5", "what a client is told to have executed did", found))
            }
            ClientOutcome::NotExecuted if executed => Err(refused(tag)),
            ClientOutcome::NotExecuted => {
                self.refused.insert(tag);
                Ok(())
            }
        }
    }

    /// Where the call was executed; `None` while it was not.
    #[must_use]
    pub fn place_of(&self, tag: u64) -> Option<OpNumber> {
        self.executed.get(&tag).map(|(op_number, _)| *op_number)
    }

    /// How many calls were acknowledged.
    #[must_use]
    pub const fn acknowledgements(&self) -> u64 {
        self.acknowledged
    }

    /// How many calls were executed.
    #[must_use]
    pub fn executions(&self) -> usize {
        self.executed.len()
    }
}

fn refused(tag: u64) -> Violation {
    let found = format!("call {tag} executed");
    Violation::new("O6", "what a client is told not to execute does not", found)
}

#[cfg(test)]
mod tests {
    use vr_core::model::types::{ClientId, View};

    use super::*;

    fn record(tag: u64) -> Record {
        let (view, client) = (View(0), ClientId(1));
        Record { view, position: 0, client, time: 1, tag, operation: 1, reply: 9 }
    }

    #[test]
    fn the_same_place_twice_is_fine_and_another_place_is_not() {
        let mut once = Once::default();
        assert_eq!(once.applied(OpNumber(3), &record(1)), Ok(()));
        assert_eq!(once.applied(OpNumber(3), &record(1)), Ok(()));
        assert!(once.applied(OpNumber(4), &record(1)).is_err());
    }

    #[test]
    fn an_acknowledgement_needs_an_execution_with_that_reply() {
        let mut once = Once::default();
        assert!(once.acknowledged(1, 9).is_err());
        assert_eq!(once.applied(OpNumber(3), &record(1)), Ok(()));
        assert_eq!(once.acknowledged(1, 9), Ok(()));
        assert!(once.acknowledged(1, 8).is_err());
    }

    #[test]
    fn what_was_called_together_stands_together() {
        let mut once = Once::default();
        for (op, tag) in [(3, 1), (3, 2), (4, 3)] {
            assert_eq!(once.applied(OpNumber(op), &record(tag)), Ok(()));
        }
        assert_eq!(once.together(&[1, 2]), Ok(()));
        assert!(once.together(&[2, 3]).is_err());
    }

    #[test]
    fn what_is_told_of_an_outcome_is_true_and_stays_true() {
        let mut once = Once::default();
        assert_eq!(once.told(1, ClientOutcome::Unknown), Ok(()));
        assert!(once.told(1, ClientOutcome::Executed).is_err());
        assert_eq!(once.applied(OpNumber(3), &record(1)), Ok(()));
        assert_eq!(once.told(1, ClientOutcome::Executed), Ok(()));
        assert!(once.told(1, ClientOutcome::NotExecuted).is_err());
        assert_eq!(once.told(2, ClientOutcome::NotExecuted), Ok(()));
        assert!(once.applied(OpNumber(4), &record(2)).is_err());
    }
}
