//! What goes into the engine and what comes out of it.

use core::time::Duration;

use crate::{
    execution::{
        transfer::{Task, TaskDone},
        work::{Executed, Work},
    },
    model::{
        certificate::Inheritance,
        durable::{CheckpointId, Durability, Trust},
        entry::Entry,
        kind::Lane,
        message::{Envelope, Standing, StatusKind, Suspicion},
        types::{
            Checksum, DiskId, Epoch, Incarnation, OpNumber, Peer, PersistId, ReplicaId, ReplicaSet,
            RequestId, View,
        },
    },
    ports::storage::WriteBatch,
    state::rebuild::Reformatting,
};

/// Something that happened; handled with the time at which it was noticed.
#[derive(Clone, Debug)]
pub enum Input {
    /// An envelope arrived; the transport vouches for `from`.
    Message {
        /// From whom.
        from: Peer,
        /// What.
        envelope: Box<Envelope>,
    },
    /// A way to the peer opened.
    Connected {
        /// To whom.
        peer: Peer,
    },
    /// The way to the peer broke; for a replica, evidence that its process ended.
    Disconnected {
        /// To whom.
        peer: Peer,
    },
    /// Every write up to and including this one would survive a crash now.
    Persisted {
        /// The last of them.
        through: PersistId,
    },
    /// Local storage answered an [`Output::Fetch`].
    Fetched {
        /// The question's name.
        request: RequestId,
        /// Ascending from the first op asked for; possibly fewer than asked for.
        entries: Vec<Entry>,
    },
    /// Local storage could not read what an [`Output::Fetch`] asked for: its first entry is damaged.
    Unreadable {
        /// The question's name.
        request: RequestId,
        /// The damaged op.
        op_number: OpNumber,
    },
    /// The executor finished work.
    Executed(Executed),
    /// What came of an [`Output::Transfer`].
    Transferred(TaskDone),
    /// The deadline passed.
    Timeout,
}

/// Something that must be done. `Persist` among themselves and `Execute` among themselves are
/// carried out in order; everything else in any order, at any time.
#[derive(Clone, Debug)]
pub enum Output {
    /// Give this to the transport; it may be dropped.
    Send {
        /// To whom.
        to: Peer,
        /// On which lane.
        lane: Lane,
        /// What.
        envelope: Box<Envelope>,
    },
    /// Make this durable behind everything handed over before, then say
    /// [`Input::Persisted`].
    Persist {
        /// The write's name; grows by one from write to write.
        id: PersistId,
        /// What to write; boxed, because it is the largest that an output carries, and rare.
        batch: Box<WriteBatch>,
    },
    /// Read entries back from local storage, then say [`Input::Fetched`].
    Fetch {
        /// The question's name.
        request: RequestId,
        /// The first op wanted.
        from: OpNumber,
        /// The last op wanted; inclusive.
        through: OpNumber,
        /// The most bytes of entries to read; one entry is always read.
        bytes_max: u64,
    },
    /// Hand this to the executor, behind everything handed over before.
    Execute(Work),
    /// Do this with the checkpoints, behind everything handed over before, and in no hurry; then
    /// say [`Input::Transferred`]. Boxed, because it is large and rare.
    Transfer(Box<Task>),
    /// Tell whoever listens.
    Event(Event),
    /// Stop the node: going on could lose or fork committed state.
    Fatal(Fatal),
}

/// Something an operator may want to know; a handful per view, never one per op.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The replica became part of a group.
    GroupJoined {
        /// Whether this replica founded it.
        founded: bool,
    },
    /// The replica votes to leave its view.
    Suspected {
        /// The view to leave.
        view: View,
        /// Why.
        reason: Suspicion,
    },
    /// A view change began here.
    ViewChangeBegan {
        /// The view left.
        from: View,
        /// The view promised to.
        to: View,
    },
    /// A view started here.
    ViewStarted {
        /// Which.
        view: View,
        /// Its primary.
        primary: ReplicaId,
        /// The last op of its log.
        op_number: OpNumber,
    },
    /// The primary heard no quorum and stopped serving.
    QuorumLost {
        /// Its view.
        view: View,
        /// The voters it still hears, itself included.
        heard: ReplicaSet,
    },
    /// The primary hears a quorum again.
    QuorumRegained {
        /// Its view.
        view: View,
    },
    /// Entries on this replica's disk are damaged; they are asked of the others.
    DamageFound {
        /// The first of them.
        first: OpNumber,
        /// The last of them.
        last: OpNumber,
        /// How many.
        count: u64,
    },
    /// Damaged entries were written again, with what another replica had.
    DamageRepaired {
        /// How many.
        count: u64,
    },
    /// A checkpoint counts here: a quorum has the same, and the log below it may be released.
    CheckpointHeld {
        /// The last op in it.
        op_number: OpNumber,
    },
    /// No quorum has the same checkpoint after an op: the state machine is not deterministic. The
    /// group goes on, and nothing of its log is released.
    CheckpointsDiffer {
        /// The last op in them.
        op_number: OpNumber,
    },
    /// What this replica lacks is not in any log any more: it fetches a checkpoint.
    SnapshotBegan {
        /// The last op in it.
        op_number: OpNumber,
    },
    /// The checkpoint that was fetched is this replica's state.
    SnapshotInstalled {
        /// The last op in it.
        op_number: OpNumber,
        /// Bytes of it that were received.
        bytes: u64,
    },
    /// The state that was on the state machine's own disk is in use: nothing up to this op is executed
    /// or restored again.
    StateResumed {
        /// The last op in it.
        op_number: OpNumber,
    },
    /// The state that was on the state machine's own disk is of no use; what is needed comes from a
    /// checkpoint, the log, or the others.
    StateDiscarded {
        /// Why.
        reason: Discarded,
    },
    /// The wall clock jumped too far ahead and was not believed.
    ClockJumped {
        /// By how much.
        by: Duration,
    },
    /// Another member has a certificate that does not name this replica's disk.
    DiskNotInCertificate {
        /// Who told.
        told_by: ReplicaId,
        /// This replica's disk.
        disk: DiskId,
    },
    /// This replica lost its log, and asks the group for it.
    RecoveryBegan {
        /// What it promised.
        view: View,
        /// The view whose log it had.
        log_view: View,
    },
    /// This replica has forgotten everything, and asks the group for it: its disk is not the one
    /// that the group knows.
    RebuildBegan,
    /// Everything came back, and this replica is part of its group again.
    GroupRejoined {
        /// How often it has forgotten everything.
        incarnation: Incarnation,
        /// The view that it came back in.
        view: View,
    },
    /// The group was restarted by force: operations that were acknowledged before may be missing.
    /// Said at each start.
    RestartedByForce {
        /// The membership period that began then.
        epoch: Epoch,
        /// The last op that was kept.
        op_number: OpNumber,
    },
    /// A member runs in another durability mode, and is not listened to.
    ModeDiffers {
        /// Who.
        peer: ReplicaId,
        /// Its mode.
        theirs: Durability,
    },
    /// The executor moved to a thread of its own: what the state machine did took longer than the
    /// heartbeat interval, at once or in several slow steps, or the primary fell silent and a slow
    /// operation may be why.
    ExecutorMoved {
        /// How long the last of the slow steps took here; zero when the primary was the silent one.
        took: Duration,
    },
    /// This primary gives nothing a place any more, until its successor has caught up.
    HandoffBegan {
        /// The successor.
        to: ReplicaId,
    },
    /// The successor holds everything, and this replica has left its view for the successor's.
    HandedOff {
        /// The successor.
        to: ReplicaId,
        /// The view that it is to lead.
        view: View,
    },
    /// Nothing came of a planned hand-off; the primary goes on, unless its view is over.
    HandoffFailed {
        /// Why.
        reason: HandoffError,
    },
}

/// Why a state that was on disk is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discarded {
    /// Its companion is damaged, or of an unknown version.
    Unreadable,
    /// It belongs to another group, or to an epoch before one that was begun by force.
    OtherGroup,
    /// What follows it is not in the log any more.
    Behind {
        /// The last op in it.
        op_number: OpNumber,
        /// The last op that is not in the log any more.
        base: OpNumber,
    },
}

/// Why a primary does not hand its view off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandoffError {
    /// It is not for this replica to hand anything off.
    #[error("this replica follows replica {primary}; ask that one")]
    NotPrimary {
        /// Who leads the view.
        primary: ReplicaId,
    },
    /// No view has started here, so there is nothing to hand off.
    #[error("no view has started at this replica")]
    NotStarted,
    /// The successor has no vote in the group.
    #[error("replica {to} is no member of the group")]
    NotMember {
        /// Who was to lead.
        to: ReplicaId,
    },
    /// The successor leads already.
    #[error("this replica leads already")]
    Itself,
    /// The successor is not connected, hears no quorum, or is too far behind.
    #[error("replica {to} cannot lead: it is not connected, hears no quorum, or is far behind")]
    NotReady {
        /// Who was to lead.
        to: ReplicaId,
    },
    /// No backup is connected, hears a quorum, and is not far behind.
    #[error("no backup is connected, hears a quorum, and is not far behind")]
    NoSuccessor,
    /// Another hand-off is under way.
    #[error("a hand-off to replica {to} is under way")]
    UnderWay {
        /// Its successor.
        to: ReplicaId,
    },
    /// The successor did not catch up in time.
    #[error("replica {to} did not catch up within {after:?}; this replica leads on")]
    TimedOut {
        /// Who was to lead.
        to: ReplicaId,
        /// How long it was waited for.
        after: Duration,
    },
    /// The node stopped, or was asked for too many hand-offs at a time.
    #[error("the node stopped, or was asked for too many hand-offs at a time")]
    Stopped,
    /// The view ended in another way.
    #[error("the view ended before the successor had caught up")]
    Interrupted,
}

/// Why the node stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// A peer's facts contradict this replica's.
    #[error("diverged from {peer} at op {op_number}: {what} (here {ours}, there {theirs})")]
    Diverged {
        /// Whose facts.
        peer: ReplicaId,
        /// Where.
        op_number: OpNumber,
        /// What contradicts what.
        what: &'static str,
        /// This replica's checksum.
        ours: Checksum,
        /// The peer's checksum.
        theirs: Checksum,
    },
    /// This replica's disk does not count any more and was formatted anew; started again, the
    /// replica gets everything from the others.
    #[error("this disk was formatted anew ({reason:?}); start again, the others have everything")]
    Reformatted {
        /// Why.
        reason: Reformatting,
    },
    /// The operator restarted the group by force, and not with this directory. It stays as it is,
    /// because it may hold what the group lost, and takes part in nothing.
    #[error(
        "the group was restarted by force as epoch {latest}, and this directory is of epoch \
         {ours}: it may hold what was lost, so move it away; then start with the directory that \
         was made for this replica, or with an empty one"
    )]
    Superseded {
        /// The epoch that was begun by force.
        latest: Epoch,
        /// The epoch of this directory.
        ours: Epoch,
    },
    /// What storage returned is not what was written to it, or nothing.
    #[error("storage did not return what was written for op {op_number}")]
    StorageLied {
        /// Where.
        op_number: OpNumber,
    },
}

/// A replica at one instant, in numbers; `explain()` puts it into words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// Which replica.
    pub replica: ReplicaId,
    /// The members, in order of their index.
    pub members: Vec<ReplicaId>,
    /// The kind of status.
    pub status: StatusKind,
    /// The current view.
    pub view: View,
    /// The durable promise.
    pub durable_view: View,
    /// The latest view whose complete log is installed.
    pub log_view: View,
    /// Who leads the current view.
    pub primary: ReplicaId,
    /// The last op of the log.
    pub op_number: OpNumber,
    /// The last op that is durable here.
    pub durable_op_number: OpNumber,
    /// The last op known to be committed.
    pub commit_number: OpNumber,
    /// The last op executed.
    pub applied: OpNumber,
    /// The checkpoint that the log may start after.
    pub checkpoint: CheckpointId,
    /// The last op after which a checkpoint was due here; above `checkpoint` while that one does not
    /// count yet.
    pub checkpoint_due: OpNumber,
    /// The last op in the latest checkpoint that is complete here, whether it counts or not.
    pub checkpoint_taken: OpNumber,
    /// At a primary: the last op of which all replicas have told their checkpoint and no quorum has
    /// the same, if none was agreed on since.
    pub checkpoints_differ: Option<OpNumber>,
    /// The last op that is not in the log any more.
    pub log_base: OpNumber,
    /// For how long nothing was added to the log, as far as heartbeats show.
    pub resting_for: Duration,
    /// A checkpoint on its way here: the last op in it, its chunks that are here, and all of them
    /// (zero before that is known).
    pub snapshot: Option<(OpNumber, u32, u32)>,
    /// Bytes of the log, as counted against `log_bytes_max`.
    pub log_bytes: u64,
    /// The last op in the state on the state machine's own disk, until it is known whether that
    /// state is of use.
    pub state_waits: Option<OpNumber>,
    /// The checkpoint that the state is being made of, by its op.
    pub restoring: Option<OpNumber>,
    /// Sessions that are open.
    pub clients: u32,
    /// The voters heard of lately, itself included.
    pub heard: ReplicaSet,
    /// At a primary: whether it hears a quorum and admits requests.
    pub serving: bool,
    /// At a primary: for how long it may answer
    /// [`Read::Lease`](crate::model::read::Read::Lease) by itself, as the clock is now.
    pub leased_for: Duration,
    /// At a primary: to whom it hands its view off, as soon as that one has caught up.
    pub handing_off: Option<ReplicaId>,
    /// At a primary: per member, the last op acknowledged.
    pub acknowledged: Vec<(ReplicaId, OpNumber)>,
    /// While blank: the members that have not answered yet.
    pub awaited: Vec<ReplicaId>,
    /// Whether the log counts as evidence.
    pub trust: Trust,
    /// The mode that the group runs in.
    pub durability: Durability,
    /// How often this replica has forgotten everything.
    pub incarnation: Incarnation,
    /// The membership period.
    pub epoch: Epoch,
    /// Logs that the operator began the group with: from an export, or by force. After one that
    /// was forced, operations that were acknowledged before may be missing.
    pub inherited: Vec<Inheritance>,
    /// Where the others stand, as far as they told lately.
    pub standings: Vec<(ReplicaId, Standing)>,
    /// While blank: whether everything is being fetched back from the group.
    pub rebuilding: bool,
    /// While blank: whether this replica may found a group, if nobody has one.
    pub may_found: bool,
    /// While blank: a member whose certificate does not name this replica's disk, if one said so.
    pub foreign_certificate: Option<ReplicaId>,
    /// First and last op that is damaged on disk, and how many are.
    pub damaged: Option<(OpNumber, OpNumber, u64)>,
    /// Who was asked for them since one was repaired last.
    pub repair_asked: ReplicaSet,
    /// Damaged ops that were repaired since the start.
    pub repaired: u64,
    /// Whether the log is no evidence: something of it is damaged or lost since the start.
    pub incomplete: bool,
    /// Writes handed to storage and not yet durable.
    pub writes_pending: u64,
    /// Since when the oldest of them has been waiting.
    pub oldest_write_age: Duration,
    /// Ops prepared and not yet committed.
    pub pipeline_ops: u64,
    /// Bytes prepared and not yet committed.
    pub pipeline_bytes: u64,
    /// At a backup: heartbeats of live primaries that came a whole interval late, or not at all.
    pub heartbeats_missed: u64,
    /// How full what is bounded is, each with its limit.
    pub queues: [Queue; 18],
    /// Messages ignored since the start.
    pub ignored: u64,
}

/// Something that grows with what others do, and the limit that it must stay within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// The field of [`Config`](crate::model::config::Config) that limits it.
    pub limit: &'static str,
    /// How much there is now.
    pub used: u64,
    /// How much there may be.
    pub used_max: u64,
}
