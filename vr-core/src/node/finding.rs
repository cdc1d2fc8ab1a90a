//! What a node has to say about itself, thing by thing.

use core::fmt;

use crate::{
    model::types::{ReplicaId, ReplicaIndex},
    node::status::NodeStatus,
};

/// What a node has to say about itself, the gravest first; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The findings.
    pub findings: Vec<Finding>,
}

/// One thing worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Which thing, for a program.
    pub cause: Cause,
    /// The thing in words, with its numbers.
    pub words: String,
    /// The numbers, by name.
    pub numbers: Vec<(&'static str, u64)>,
    /// What can be done about it; empty if nothing needs to be.
    pub remedy: String,
}

/// What a [`Finding`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The node has stopped.
    Stopped,
    /// The group was founded with another disk than this replica's.
    WipedDisk,
    /// The replica is not part of a group yet and waits for others.
    Blank,
    /// Replicas are without their logs, and what is left does not suffice to start a view yet.
    LogLost,
    /// Fewer than a quorum of replicas hear each other.
    NoQuorum,
    /// The primary is gone, and the next view has not started yet.
    PrimaryLost,
    /// Entries on this replica's disk are damaged.
    Damaged,
    /// A checkpoint is fetched in the place of a log that nobody has any more.
    Fetching,
    /// The state on the state machine's own disk waits for the log to come as far.
    StateWaiting,
    /// The state is being made of a checkpoint, or anew.
    StateRestoring,
    /// No quorum has the same checkpoint.
    CheckpointsDiffer,
    /// A write to storage takes far too long.
    StorageStalled,
    /// The log has reached its limit.
    LogFull,
    /// The log is more than half full, because no checkpoint counts after which it could begin.
    LogGrows,
    /// The pipeline has reached its limit.
    PipelineFull,
    /// More of the log is missing here than can be on its way from the primary.
    CatchingUp,
    /// Committed ops wait for the state machine.
    ExecutorBehind,
    /// The log is more than half full as with [`LogGrows`](Self::LogGrows), and stands still.
    LogRests,
    /// Some members are not heard of, but a quorum is.
    MembersMissing,
    /// The transport complained.
    Complaints,
    /// The group is too small to survive any failure.
    ToleratesNothing,
    /// Nothing is wrong.
    Well,
}

impl Explanation {
    /// Whether nothing keeps operations from committing.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.findings.iter().any(|finding| finding.cause == Cause::Well)
    }

    /// The finding about `cause`, if there is one.
    #[must_use]
    pub fn about(&self, cause: Cause) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.cause == cause)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, finding) in self.findings.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&finding.words)?;
            if !finding.remedy.is_empty() {
                write!(f, "\n  {}", finding.remedy)?;
            }
        }
        Ok(())
    }
}

/// Members and quorum.
pub(crate) fn sizes(status: &NodeStatus) -> (u64, u64) {
    let members = count(status.replica.members.len());
    (members, members / 2 + 1)
}

/// The members that have not been heard of lately.
pub(crate) fn silent(status: &NodeStatus) -> Vec<ReplicaId> {
    let indexed = (0_u8..).map(ReplicaIndex).zip(&status.replica.members);
    let silent = indexed.filter(|(index, _)| !status.replica.heard.contains(*index));
    silent.map(|(_, id)| *id).filter(|id| *id != status.replica.replica).collect()
}

pub(crate) fn names(replicas: &[ReplicaId]) -> String {
    let names: Vec<String> = replicas.iter().map(ToString::to_string).collect();
    if names.is_empty() { "nobody".into() } else { names.join(", ") }
}

pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
