//! What replicas and clients say to each other; one enum, mirrored by docs/WIRE.md.

use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::{
    certificate::{CertificateHash, CrashVector},
    durable::{CheckpointId, Trust},
    entries::{Entries, GetEntries, GetHeaders, Headers},
    entry::{EntryHeader, Run},
    founding::{Found, FoundOk, Hello, HelloOk},
    operation::Summed,
    read::Read,
    snapshot::{GetSnapshot, Released, Snapshot},
    types::{
        Checksum, ClientId, Epoch, GroupId, HeartbeatNumber, Incarnation, Nonce, OpNumber,
        ReplicaId, ReplicaSet, RequestId, RequestNumber, View,
    },
};

/// What travels between two ends: a message and what the receiver must know of its sender.
///
/// It is a value, not bytes: a transport inside one process hands it over without encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The group it belongs to.
    pub group: GroupId,
    /// The sender's certificate; a different one is answered, never processed.
    pub certificate: CertificateHash,
    /// The sender's membership period.
    pub epoch: Epoch,
    /// Who sent it.
    pub sender: Sender,
    /// How often the sender forgot everything.
    pub incarnation: Incarnation,
    /// The sender's **durable** view; never one that a crash could take back.
    pub view: View,
    /// What the sender knows of the others' incarnations; empty while nobody forgot anything.
    pub crash_vector: CrashVector,
    /// What it says.
    pub message: Message,
}

/// Who sent an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Sender {
    /// A member of the group.
    Replica(ReplicaId),
    /// A client of the group.
    Client(ClientId),
}

/// Everything that can be said. The envelope names the sender and its view.
///
/// # Source
/// VRR §4 and §5, PROTOCOL.md "Messages".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Client to replica: open a session.
    Register(Register),
    /// Client to replica: execute an operation exactly once.
    Request(Request),
    /// Client to replica: execute several operations, each exactly once.
    Requests(Requests),
    /// Replica to client: what the operation returned.
    Reply(Reply),
    /// Replica to client: what several operations returned.
    Replies(Replies),
    /// Replica to client: why the request was not accepted.
    Rejected(Rejected),
    /// Client to replica: answer a query from the state, without a place in the log.
    Query(Query),
    /// Replica to client: what the query returned.
    Answer(Answer),
    /// Backup to primary: a client's request or registration.
    Forward(Forward),
    /// Primary to backup: what to tell the client whose request was forwarded.
    ForwardReply(ForwardReply),
    /// Primary to backup: append these entries.
    Prepare(Prepare),
    /// Backup to primary: everything through this op is as durable as the mode asks.
    PrepareOk(PrepareOk),
    /// Primary to backup: heartbeat and commit number.
    Commit(Commit),

    /// Replica to all: a non-binding vote to leave a view.
    StartViewChange(StartViewChange),
    /// Replica to all: a binding promise to a view, with the log it can contribute.
    DoViewChange(DoViewChange),
    /// Primary to backup: the view has started with this log.
    StartView(StartView),
    /// Replica to any: tell me the log of this view or a later one.
    GetView(GetView),
    /// Replica to replica: where I stand; answered by a pong.
    Ping(Ping),
    /// Replica to replica: where I stand, in answer to a ping.
    Pong(Ping),
    /// Primary to all: I leave this view on purpose, for one that another leads.
    Handoff(Handoff),

    /// Replica to any: headers below a known checksum.
    GetHeaders(GetHeaders),
    /// Answer to [`Message::GetHeaders`].
    Headers(Headers),
    /// Replica to any: entries of the log.
    GetEntries(GetEntries),
    /// Answer to [`Message::GetEntries`].
    Entries(Entries),
    /// Answer to both, when what was asked for is not kept any more.
    Released(Released),
    /// Replica to any: a part of a checkpoint.
    GetSnapshot(GetSnapshot),
    /// Answer to [`Message::GetSnapshot`].
    Snapshot(Snapshot),

    /// Backup to primary: up to which op must I have executed to read linearizably?
    ReadIndex(ReadIndex),
    /// Answer to [`Message::ReadIndex`].
    ReadIndexOk(ReadIndexOk),

    /// Replica to all: who are you, and do you have a certificate?
    Hello(Hello),
    /// Answer to [`Message::Hello`], and to any message with another certificate.
    HelloOk(HelloOk),
    /// Founder to all: these are the disks that I found the group with.
    Found(Found),
    /// Answer to [`Message::Found`]: I am still without certificate, and that is my disk.
    FoundOk(FoundOk),
    /// Asks for what a crash took.
    Recovery(Recovery),
    /// Tells where the group is, and the log if the sender is its primary.
    RecoveryResponse(RecoveryResponse),
    /// Asks what is known of incarnations.
    GetCrashVector(GetCrashVector),
    /// Answers with the envelope's crash vector.
    CrashVectorIs(CrashVectorIs),
}

/// Opens a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Who opens it: random, used once.
    pub client: ClientId,
    /// Makes a repeated registration recognisable.
    pub nonce: Nonce,
}

/// Asks for one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub client: ClientId,
    /// The op that registered the client.
    pub session: OpNumber,
    /// The client's number for this request; the first is 1.
    pub request_number: RequestNumber,
    /// Whether it is for several operations, which [`join`](crate::model::many::join) made one.
    pub many: bool,
    /// The operation's bytes.
    pub operation: Bytes,
}

/// Asks for operations under consecutive numbers; each is a request like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// Who asks.
    pub client: ClientId,
    /// The op that registered the client.
    pub session: OpNumber,
    /// The number of the first request.
    pub first: RequestNumber,
    /// What they ask for, in the order of their numbers; at least one.
    pub operations: Vec<Summed>,
}

/// Answers a request or a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Who asked.
    pub client: ClientId,
    /// Which request; 0 for a registration.
    pub request_number: RequestNumber,
    /// Where the request stands in the log; for a registration this is the session.
    pub op_number: OpNumber,
    /// What became of it.
    pub outcome: Outcome,
}

/// Answers requests of one client, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replies {
    /// Who asked.
    pub client: ClientId,
    /// The answers; at least one.
    pub replies: Vec<Replied>,
}

/// A [`Reply`] without the client's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replied {
    /// Which request.
    pub request_number: RequestNumber,
    /// Where the request stands in the log.
    pub op_number: OpNumber,
    /// What became of it.
    pub outcome: Outcome,
}

/// What executing an entry came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The state machine's reply; of several operations what
    /// [`join_replies`](crate::model::many::join_replies) makes of theirs.
    Executed(Bytes),
    /// The state machine could not read the operation; nothing changed.
    Malformed,
    /// The session is open.
    Registered,
    /// The client has no session (any more); nothing changed.
    Evicted,
    /// It executed, but its reply has left the client's window; where it stands is not known.
    Forgotten,
}

/// Says why a request was not taken; it was not executed because of this message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Who asked.
    pub client: ClientId,
    /// Which request, registration (0) or query.
    pub request_number: RequestNumber,
    /// Why not.
    pub reason: Rejection,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Rejection {
    /// A limit is reached; trying again later is safe and can succeed.
    Busy(Limit),
    /// The client has no session here; requests in flight may or may not have executed.
    Evicted,
    /// The operation is larger than `Config::request_bytes_max`.
    TooLarge {
        /// How large it is.
        bytes: u32,
        /// How large it may be.
        bytes_max: u32,
    },
}

/// The limit that made a replica say busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Limit {
    /// `Config::pipeline_ops_max` or `pipeline_bytes_max`: prepared and not yet committed.
    Pipeline,
    /// `Config::log_bytes_max`: the log cannot grow.
    Log,
    /// `Config::clients_max`: no session can be opened.
    Clients,
    /// `Config::window`: the client has too many requests in flight.
    Window,
    /// `Config::forward_ops_max`: a backup holds too many requests for its primary.
    Forward,
    /// `Config::reads_max`: too many reads wait for their round.
    Reads,
    /// No quorum answers, so nothing can commit.
    NoQuorum,
}

/// Asks a question of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who asks.
    pub client: ClientId,
    /// The client's number for this query; a space of its own, apart from requests.
    pub request_number: RequestNumber,
    /// How fresh the answer must be.
    pub read: Read,
    /// The query's bytes.
    pub query: Bytes,
}

/// Answers a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub client: ClientId,
    /// Which query.
    pub request_number: RequestNumber,
    /// The last op that the answer reflects.
    pub op_number: OpNumber,
    /// The state machine's answer; `None` when it could not read the query.
    pub answer: Option<Bytes>,
}

/// A client's request on its way through a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// A request.
    Request(Request),
    /// A registration.
    Register(Register),
}

/// What a backup tells the client whose request it forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardReply {
    /// It executed.
    Reply(Reply),
    /// It was not taken.
    Rejected(Rejected),
}

/// Entries to append.
///
/// # Source
/// VRR §4.1 step 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// In op order, each the parent of the next; shared between the backups' messages.
    pub entries: Run,
    /// What the primary knows to be committed.
    pub commit: Committed,
    /// The latest heartbeat round, to be echoed.
    pub heartbeat: HeartbeatNumber,
}

/// A commit number and the entry that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The latest committed op.
    pub op_number: OpNumber,
    /// Checksum of its entry.
    pub checksum: Checksum,
}

/// Everything through `op_number` is as durable as the mode asks; also answers a heartbeat.
///
/// # Source
/// VRR §4.1 step 4, cumulative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareOk {
    /// The acknowledged op.
    pub op_number: OpNumber,
    /// Checksum of its entry.
    pub checksum: Checksum,
    /// The highest heartbeat round heard in this view.
    pub heartbeat: HeartbeatNumber,
    /// The latest op executed here.
    pub applied: OpNumber,
    /// The latest checkpoint that is complete here.
    pub checkpoint: CheckpointId,
    /// Where the sender stands; present in answers to heartbeats.
    pub standing: Option<Standing>,
    /// For how long after it heard `heartbeat`, by its own clock and in whole microseconds, the
    /// sender votes for no other view; zero where it promises nothing, and outside of answers.
    pub lease: Duration,
}

/// Heartbeat of the primary.
///
/// # Source
/// VRR §4.1 step 6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// What the primary knows to be committed.
    pub commit: Committed,
    /// Numbers this round; echoed in the answer.
    pub heartbeat: HeartbeatNumber,
    /// The latest checkpoint that a quorum has told the primary of, alike.
    pub agreed: CheckpointId,
    /// Where the primary stands.
    pub standing: Standing,
}

/// Where a replica stands; carried by pings, pongs, heartbeats and their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The latest view whose complete log is installed.
    pub log_view: View,
    /// The last op of the log.
    pub op_number: OpNumber,
    /// The kind of status.
    pub status: StatusKind,
    /// The voters heard of lately, the sender itself included.
    pub heard: ReplicaSet,
}

/// Which sub-protocol a replica is in, without its data.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum StatusKind {
    /// Without a certificate: not yet part of a group.
    #[default]
    Blank,
    /// In a view that has started.
    Normal,
    /// Between two views.
    ViewChange,
    /// Rejoining after losing state.
    Recovering,
}

/// A non-binding vote to leave `view`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartViewChange {
    /// The view to leave; may be newer than the envelope's durable view.
    pub view: View,
    /// Why.
    pub reason: Suspicion,
    /// Where the voter stands.
    pub standing: Standing,
}

/// Why a replica wants to leave its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Suspicion {
    /// The primary was silent for the suspicion timeout.
    PrimarySilent,
    /// The connection of the primary's process closed.
    PrimaryLost,
    /// The primary itself no longer hears a quorum.
    CheckQuorum,
    /// The view change did not complete in time.
    ViewChangeStuck,
    /// The next primary's log is too far behind.
    Behind,
    /// The primary said that it restarted and lost its log.
    PrimaryRestarted,
    /// This replica lost its log, and nobody who could give it back answers.
    Recovering,
}

/// A binding promise to the envelope's view, with the log that the sender can contribute.
///
/// # Source
/// VRR §4.2 step 2; headers instead of the log, PROTOCOL.md "View change".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoViewChange {
    /// The view promised to.
    pub view: View,
    /// The latest view whose complete log the sender holds, durably (v' in the paper).
    pub log_view: View,
    /// The last op of that log.
    pub op_number: OpNumber,
    /// Checksum of the entry at that op.
    pub head: Checksum,
    /// The latest op the sender knows to be committed.
    pub commit_number: OpNumber,
    /// The checkpoint that the log starts after.
    pub checkpoint: CheckpointId,
    /// The last headers of the log, ascending, ending at `op_number`.
    pub suffix: Vec<EntryHeader>,
    /// Whether the log counts as evidence.
    pub trust: Trust,
    /// The sender started `log_view` as its primary and has not restarted since.
    pub unbroken: bool,
}

/// The envelope's view has started with this log.
///
/// # Source
/// VRR §4.2 step 3; headers instead of the log, PROTOCOL.md "View change".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartView {
    /// The view that started.
    pub view: View,
    /// The last op of its log.
    pub op_number: OpNumber,
    /// Checksum of the entry at that op.
    pub head: Checksum,
    /// The latest op known to be committed.
    pub commit_number: OpNumber,
    /// The checkpoint that the log starts after.
    pub checkpoint: CheckpointId,
    /// The last headers of the log, ascending, ending at `op_number`.
    pub suffix: Vec<EntryHeader>,
    /// The nonce of the question this answers, if it answers one.
    pub nonce: Option<Nonce>,
}

/// Asks for the log of a view that has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetView {
    /// The lowest view of interest.
    pub view: View,
    /// To be repeated in the answer.
    pub nonce: Nonce,
}

/// Where the sender stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Its position.
    pub standing: Standing,
    /// The sender's monotonic clock in nanoseconds; a pong repeats the ping's.
    pub sent_at: u64,
}

/// Announces that the primary leaves its view, because a backup that holds everything is to lead.
///
/// # Source
/// PROTOCOL.md "Hand-off"; not in the papers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// The view that the sender leaves for; its primary is the successor.
    pub view: View,
    /// The last op of the sender's log, which is committed.
    pub op_number: OpNumber,
    /// Checksum of its entry.
    pub checksum: Checksum,
}

/// Asks the primary for a read index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadIndex {
    /// Names the question; all reads that wait at the backup share it.
    pub request: RequestId,
}

/// The primary was still primary after the question, and had committed this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadIndexOk {
    /// The question's name.
    pub request: RequestId,
    /// What the reader must have executed.
    pub op_number: OpNumber,
    /// The time the query is told, in nanoseconds since 1970.
    pub time: u64,
}

/// Asks for what a crash took: the log, and with the disk also the promises.
///
/// # Source
/// VRR §4.3 step 1; PROTOCOL.md "Recovery".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Makes answers belong to this recovery.
    pub nonce: Nonce,
    /// What the sender promised; zero if it forgot that too.
    pub view: View,
    /// The view whose log it lost; zero if it does not know.
    pub log_view: View,
    /// It led `view` when it crashed, so that nobody does now.
    pub primary_restarted: bool,
}

/// Answers a recovery; the envelope's view is the one that the sender is normal in.
///
/// # Source
/// VRR §4.3 step 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryResponse {
    /// The question's.
    pub nonce: Nonce,
    /// The log of the view, if the sender leads it.
    pub start: Option<StartView>,
}

/// Asks what is known of incarnations, first of all the sender's own, which it forgot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetCrashVector {
    /// Makes answers belong to this question.
    pub nonce: Nonce,
}

/// The envelope's crash vector is what the sender knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashVectorIs {
    /// The question's.
    pub nonce: Nonce,
}
