//! What exports need: checkpoints that are not dropped, and a log that is not released, meanwhile.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use crate::{
    execution::transfer::Task,
    model::{durable::CheckpointId, types::OpNumber},
    node::lock::lock,
    ports::storage::WriteBatch,
};

/// The checkpoints that somebody copies, and how many copies of each are made. What is in the log
/// above the lowest of them stays, too.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<BTreeMap<CheckpointId, usize>>);

/// Keeps one checkpoint, and the log above it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Arc<Pins>,
    id: CheckpointId,
}

impl Pin {
    pub(crate) fn new(pins: &Arc<Pins>, id: CheckpointId) -> Self {
        *lock(&pins.0).entry(id).or_default() += 1;
        Self { pins: Arc::clone(pins), id }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = lock(&self.pins.0);
        let left = pinned.get(&self.id).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            pinned.remove(&self.id);
        } else {
            pinned.insert(self.id, left);
        }
    }
}

impl Pins {
    /// The same without what is pinned: whatever is not released now is released with the next.
    pub(crate) fn spare(&self, mut batch: WriteBatch) -> WriteBatch {
        let lowest: Option<OpNumber> = lock(&self.0).keys().map(|id| id.op_number).min();
        if let (Some(through), Some(lowest)) = (batch.release, lowest) {
            batch.release = Some(through.min(lowest));
        }
        batch
    }

    /// The same, keeping what is pinned.
    pub(crate) fn keep(&self, task: Task) -> Task {
        match task {
            Task::Keep { mut checkpoints, through } => {
                checkpoints.extend(lock(&self.0).keys());
                Task::Keep { checkpoints, through }
            }
            Task::Serve { .. } | Task::Look { .. } | Task::Put { .. } | Task::Complete { .. } => {
                task
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(op: u64) -> CheckpointId {
        CheckpointId { op_number: OpNumber(op), ..CheckpointId::default() }
    }

    fn released(pins: &Pins, through: u64) -> Option<OpNumber> {
        let release = Some(OpNumber(through));
        pins.spare(WriteBatch { release, ..WriteBatch::default() }).release
    }

    #[test]
    fn what_is_pinned_stays_until_the_last_copy_is_made() {
        let pins = Arc::new(Pins::default());
        let (first, second) = (Pin::new(&pins, id(10)), Pin::new(&pins, id(10)));
        let later = Pin::new(&pins, id(20));
        let kept = |pins: &Pins| {
            pins.keep(Task::Keep { checkpoints: vec![id(30)], through: OpNumber(30) })
        };
        assert_eq!(
            kept(&pins),
            Task::Keep { checkpoints: vec![id(30), id(10), id(20)], through: OpNumber(30) }
        );
        assert_eq!(released(&pins, 30), Some(OpNumber(10)));
        assert_eq!(released(&pins, 7), Some(OpNumber(7)));
        drop(first);
        assert_eq!(released(&pins, 30), Some(OpNumber(10)));
        drop(second);
        assert_eq!(released(&pins, 30), Some(OpNumber(20)));
        drop(later);
        assert_eq!(released(&pins, 30), Some(OpNumber(30)));
        assert_eq!(kept(&pins), Task::Keep { checkpoints: vec![id(30)], through: OpNumber(30) });
        assert_eq!(pins.spare(WriteBatch::default()), WriteBatch::default());
    }
}
