//! What is wrong with a state machine, in words for somebody who wrote their first one.

use core::fmt;

use vr_core::model::types::{OpNumber, ReplicaId};

/// Something that is wrong with the user's state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What was seen.
    pub(super) what: String,
    /// Why it must not be, and where to look; empty if that is said already.
    pub(super) advice: &'static str,
}

/// One life of the state machine at one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) replica: ReplicaId,
    /// How often the replica was started before.
    pub(super) restarts: u64,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {}", self.replica)?;
        match self.restarts {
            0 => Ok(()),
            1 => f.write_str(" (replaying its log after a restart)"),
            more => write!(f, " (replaying its log after restart {more})"),
        }
    }
}

/// About state machines that are no functions of their operations.
pub(super) const NOT_DETERMINISTIC: &str = "\
A state machine must be a pure function of its operations: all replicas apply the same ones, and
must give the same replies and reach the same state. Look for iteration over a HashMap or HashSet
(use BTreeMap, BTreeSet), clocks (use context.time), random numbers (let the client draw them),
and for files, environment variables, threads, globals and addresses.
What is random in this way does not follow the seed, so a repetition may show it at another op.";

/// About snapshots that are not the state.
pub(super) const FORGETFUL: &str = "\
A snapshot must hold everything that apply and query depend on, and restore must bring back just
that. Look for a field that snapshot leaves out (#[serde(skip)]), that restore does not set, or
that restore executes or adds once more instead of replacing it. Replicas that catch up by a
snapshot would answer differently from those that applied every operation.";

/// About snapshots whose bytes are not determined by the state.
pub(super) const NOT_CANONICAL: &str = "\
Equal states must write equal snapshots, because replicas compare them by their bytes. Look for a
HashMap or HashSet that is written in its order of iteration: use BTreeMap or BTreeSet, or sort.";

/// About panics.
pub(super) const PANICS: &str = "\
The operation is committed, so every replica will apply it, and again after each restart: all of
them stop and the service is gone. Reply to an operation that makes no sense with an error, and
use arithmetic that cannot overflow.";

/// About panics that no log repeats.
pub(super) const PANICS_IN_QUERIES: &str = "\
A panic stops the replica that answers, and a client that asks again stops the next one. Answer a
query that makes no sense with an error.";

impl Finding {
    /// Two instances replied differently.
    pub(super) fn replies(
        op: OpNumber,
        operation: &str,
        [first, other]: [(&str, &str); 2],
    ) -> Self {
        let ((first, reply), (other, another)) = (first, other);
        let what = format!(
            "{other} answered op {op} differently than {first}\n  op {op}:     {operation}\n  \
             {first}: {reply}\n  {other}: {another}"
        );
        Self { what, advice: NOT_DETERMINISTIC }
    }

    /// Two instances that applied the same operations are in different states.
    pub(super) fn states(op: OpNumber, first: &str, other: &str, difference: &str) -> Self {
        let what = format!(
            "{other} is in another state than {first} after op {op}, though both applied the same \
             operations\n  {difference}"
        );
        Self { what, advice: NOT_DETERMINISTIC }
    }

    /// A restored instance behaves differently than the one whose snapshot it was restored from.
    pub(super) fn forgotten(taken: OpNumber, then: &str) -> Self {
        let what = format!(
            "a state machine restored from the snapshot taken after op {taken} is not the one that \
             wrote it\n  {then}"
        );
        Self { what, advice: FORGETFUL }
    }

    /// Instances restored from one snapshot write different ones.
    pub(super) fn unordered(op: OpNumber, difference: &str) -> Self {
        let what = format!(
            "two state machines restored from one snapshot, taken after op {op}, write different \
             snapshots\n  {difference}"
        );
        Self { what, advice: NOT_CANONICAL }
    }

    /// `apply` panicked.
    pub(super) fn panicked(who: Who, op: OpNumber, operation: &str, message: &str) -> Self {
        let message = message.replace('\n', " ");
        let what = format!(
            "{who} panicked while applying op {op}\n  op {op}: {operation}\n  panic: {message}"
        );
        Self { what, advice: PANICS }
    }

    /// `query` panicked.
    pub(super) fn unanswerable(who: Who, query: &str, message: &str) -> Self {
        let message = message.replace('\n', " ");
        let what =
            format!("{who} panicked while answering a query\n  query: {query}\n  panic: {message}");
        Self { what, advice: PANICS_IN_QUERIES }
    }

    /// `snapshot` or `restore` failed.
    pub(super) fn unusable(op: OpNumber, why: &str) -> Self {
        let what = format!("no use can be made of the snapshot taken after op {op}\n  {why}");
        Self { what, advice: FORGETFUL }
    }
}

/// Where two encodings part.
pub(super) fn difference(one: &[u8], other: &[u8]) -> String {
    let parted = one.iter().zip(other).position(|(one, other)| one != other);
    let at = parted.unwrap_or_else(|| one.len().min(other.len()));
    format!("their snapshots, {} and {} bytes, part at byte {at}", one.len(), other.len())
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "\n\n{}", self.advice) }
    }
}
