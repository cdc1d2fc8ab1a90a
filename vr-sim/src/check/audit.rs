//! What all replicas' state machines did in one run, compared with each other and with a replay.

use core::{
    fmt,
    ops::{Bound, RangeInclusive},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use vr_core::{
    Context,
    model::types::{OpNumber, ReplicaId},
    ports::state_machine,
};

use crate::{
    check::{
        finding::{Finding, Who, difference},
        instance::{Make, restored, snapshot_of},
        panics::caught,
    },
    checker::{Verdict, Violation},
    cluster::client::Service,
};

/// How often a log is replayed to see whether the replays agree.
const REPLAYS: u32 = 8;

/// An audit that the replicas of a run share.
pub(super) type SharedAudit<S> = Arc<Mutex<Audit<S>>>;

/// The log as state machines applied it, and what they made of it.
pub(super) struct Audit<S: Service> {
    make: Make<S>,
    log: BTreeMap<OpNumber, Applied>,
    snapshots: BTreeMap<OpNumber, (Who, Vec<u8>)>,
    last: BTreeMap<ReplicaId, (OpNumber, Vec<u8>)>,
    lives: BTreeMap<ReplicaId, u64>,
    finding: Option<Finding>,
}

/// An operation, and what the first replica that applied it replied.
struct Applied {
    context: Context,
    operation: Bytes,
    reply: Bytes,
    by: Who,
}

/// What two instances are compared by, besides their replies.
pub(super) type Probe<'a, S> = &'a dyn Fn(&S) -> Vec<u8>;

impl<S: Service> Audit<S> {
    pub(super) fn new(make: Make<S>) -> Self {
        Self {
            make,
            log: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            last: BTreeMap::new(),
            lives: BTreeMap::new(),
            finding: None,
        }
    }

    /// A new life of the state machine at `replica`.
    pub(super) fn born(&mut self, replica: ReplicaId) -> Who {
        let lives = self.lives.entry(replica).or_default();
        let who = Who { replica, restarts: *lives };
        *lives += 1;
        who
    }

    /// Remembers the first thing that is wrong.
    pub(super) fn report(&mut self, finding: Finding) {
        self.finding.get_or_insert(finding);
    }

    pub(super) const fn finding(&self) -> Option<&Finding> {
        self.finding.as_ref()
    }

    /// The finding as an oracle's verdict, which ends the run.
    pub(super) fn verdict(&self) -> Verdict {
        let Some(finding) = &self.finding else { return Ok(()) };
        let rule = "the service is a deterministic state machine";
        Err(Violation::new("service", rule, finding.what.clone()))
    }

    /// `who` applied `operation` and replied.
    pub(super) fn applied(&mut self, who: Who, context: Context, operation: Bytes, reply: &Bytes) {
        let op = context.viewstamp.op_number;
        let Some(first) = self.log.get(&op) else {
            let reply = reply.clone();
            self.log.insert(op, Applied { context, operation, reply, by: who });
            return;
        };
        if first.reply != *reply && first.operation == operation {
            let (one, other) = (first.by.to_string(), who.to_string());
            let replies = [shown::<S::Reply>(&first.reply), shown::<S::Reply>(reply)];
            let [was, is] = &replies;
            let operation = shown::<S::Operation>(&operation);
            self.report(Finding::replies(op, &operation, [(&one, was), (&other, is)]));
        }
    }

    /// `who` has this snapshot after `op`.
    pub(super) fn snapshot(&mut self, who: Who, op: OpNumber, snapshot: &[u8]) {
        self.last.insert(who.replica, (op, snapshot.to_owned()));
        let Some((first, known)) = self.snapshots.get(&op) else {
            self.snapshots.insert(op, (who, snapshot.to_owned()));
            return;
        };
        if known != snapshot {
            let unlike = format!("{}\n{}", difference(known, snapshot), self.between(op));
            let states = || Finding::states(op, &first.to_string(), &who.to_string(), &unlike);
            let finding = self.unordered(op, snapshot).unwrap_or_else(states);
            self.report(finding);
        }
    }

    /// The operations since the states were last found equal.
    fn between(&self, op: OpNumber) -> String {
        let agreed = self.snapshots.range(..op).next_back().map_or(OpNumber::ZERO, |(op, _)| *op);
        let mut text = format!("  they were equal after op {agreed}; what was applied since:");
        for (op, applied) in self.log.range((Bound::Excluded(agreed), Bound::Included(op))) {
            text.push_str(&format!("\n  op {op}: {}", shown::<S::Operation>(&applied.operation)));
        }
        text
    }

    /// Whether instances restored from `snapshot` write it again, all of them.
    pub(super) fn unordered(&self, op: OpNumber, snapshot: &[u8]) -> Option<Finding> {
        let again = || {
            let copy = restored(&self.make, snapshot).ok()?;
            snapshot_of(&copy).ok()
        };
        let first = again()?;
        let other = (1..REPLAYS).filter_map(|_| again()).find(|other| *other != first)?;
        Some(Finding::unordered(op, &difference(&first, &other)))
    }

    /// An instance that was restored from the snapshot taken after an op differs: `how`. It is the
    /// snapshot's fault if instances that use none agree, by their replies and by `probe`.
    pub(super) fn blame(
        &self,
        ops: RangeInclusive<OpNumber>,
        how: &str,
        probe: Probe<'_, S>,
    ) -> Finding {
        let (taken, op) = ops.into_inner();
        if let Some((_, snapshot)) = self.snapshots.get(&taken)
            && let Some(unordered) = self.unordered(taken, snapshot)
        {
            return unordered;
        }
        self.nondeterminism(op, probe).unwrap_or_else(|| Finding::forgotten(taken, how))
    }

    /// Replays the log through `op` a few times; tells when replays do not agree.
    fn nondeterminism(&self, op: OpNumber, probe: Probe<'_, S>) -> Option<Finding> {
        let mut first = None;
        for _ in 0..REPLAYS {
            let end = match self.replayed(op) {
                Ok(state) => probe(&state),
                Err(finding) => return Some(finding),
            };
            let before = first.get_or_insert_with(|| end.clone());
            if *before != end {
                let unlike = format!("{}\n{}", difference(before, &end), self.between(op));
                return Some(Finding::states(op, "a replay", "another replay", &unlike));
            }
        }
        None
    }

    /// A new instance that applied the log through `op`.
    ///
    /// # Errors
    /// When it replied differently than was recorded.
    fn replayed(&self, op: OpNumber) -> Result<S, Finding> {
        let mut state = (self.make)();
        for (op, applied) in self.log.range(..=op) {
            let Ok(operation) = state_machine::decode(&applied.operation) else { continue };
            let reply = caught(|| state.apply(&applied.context, operation));
            let (reply, says) = match reply {
                Ok(reply) => (bytes_of(&reply), format!("{reply:?}")),
                Err(panic) => (Bytes::new(), format!("panic: {}", panic.message)),
            };
            if reply != applied.reply {
                let replica = applied.by.to_string();
                let recorded = shown::<S::Reply>(&applied.reply);
                let operation = shown::<S::Operation>(&applied.operation);
                let replies =
                    [(replica.as_str(), recorded.as_str()), ("a replay of the log", &says)];
                return Err(Finding::replies(*op, &operation, replies));
            }
        }
        Ok(state)
    }

    /// After the run: a replay of all of the log must be where the replicas are.
    pub(super) fn replay(&mut self) {
        let Some((op, _)) = self.log.last_key_value() else { return };
        let op = *op;
        let found = match self.replayed(op) {
            Err(finding) => Some(finding),
            Ok(state) => match (snapshot_of(&state), self.snapshots.get(&op)) {
                (Ok(replayed), Some((by, known))) if replayed != *known => {
                    let unlike = difference(known, &replayed);
                    let states =
                        || Finding::states(op, &by.to_string(), "a replay of the log", &unlike);
                    Some(self.unordered(op, known).unwrap_or_else(states))
                }
                (Ok(_), _) => None,
                (Err(why), _) => Some(Finding::unusable(op, &why)),
            },
        };
        if let Some(finding) = found {
            self.report(finding);
        }
    }

    /// The state of each replica that has applied everything.
    pub(super) fn states(&self) -> Vec<(ReplicaId, S)> {
        let end = self.log.last_key_value().map(|(op, _)| *op);
        let whole = self.last.iter().filter(|(_, (op, _))| Some(*op) == end);
        let states = whole.map(|(replica, (_, snapshot))| {
            restored(&self.make, snapshot).map(|state| (*replica, state))
        });
        states.filter_map(Result::ok).collect()
    }

    /// The operations that were executed and their replies, in the order of the log.
    pub(super) fn log(&self) -> Vec<(OpNumber, S::Operation, S::Reply)> {
        let read = self.log.iter().filter_map(|(op, applied)| {
            let operation = state_machine::decode(&applied.operation).ok()?;
            Some((*op, operation, state_machine::decode(&applied.reply).ok()?))
        });
        read.collect()
    }
}

/// The encoding of a value; nothing when it has none.
pub(super) fn bytes_of(value: &impl Serialize) -> Bytes {
    state_machine::encode(value).unwrap_or_default()
}

/// An encoded value in words.
fn shown<T: DeserializeOwned + fmt::Debug>(bytes: &[u8]) -> String {
    match state_machine::decode::<T>(bytes) {
        Ok(value) => format!("{value:?}"),
        Err(_) => format!("{} bytes that cannot be read", bytes.len()),
    }
}

impl<S: Service> fmt::Debug for Audit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("applied", &self.log.len())
            .field("finding", &self.finding)
            .finish_non_exhaustive()
    }
}
