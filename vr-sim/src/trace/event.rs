//! What can happen in a run, each thing as a value.

use vr_core::{
    model::{
        kind::{Kind, Lane},
        message::{Envelope, Message, StatusKind},
        time::Instant,
        types::{OpNumber, ReplicaId, View},
    },
    replica::io::ReplicaStatus,
};

use crate::{actor::Actor, checker::Violation};

/// Something worth a line of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// An envelope was given to the network.
    Sent(Packet),
    /// An envelope reached its receiver's process.
    Delivered(Packet),
    /// An envelope vanished.
    Lost(Packet, Loss),
    /// An envelope waits for a release by hand.
    Held(Packet),
    /// A way between two actors opened.
    Connected(Actor, Actor),
    /// A way between two actors broke.
    Disconnected(Actor, Actor),
    /// A replica made something durable: how many entries, through which op, promising which view.
    Stored {
        /// Which replica.
        replica: ReplicaId,
        /// How many entries.
        entries: u64,
        /// The last op of its durable log.
        op_number: OpNumber,
        /// Its durable promise.
        view: View,
        /// Its durable log view.
        log_view: View,
    },
    /// A replica applied an operation.
    Applied {
        /// Which replica.
        replica: ReplicaId,
        /// The operation's place.
        op_number: OpNumber,
        /// The harness's number for the operation.
        tag: u64,
    },
    /// A client's call came to its end: the call's number, and how it ended.
    Answered(u64, &'static str),
    /// Something happened to a process, or to its storage.
    Process(Actor, Fate),
    /// What the first sends to the second is lost from now on.
    Cut(Actor, Actor),
    /// What the first sends to the second arrives again.
    Mended(Actor, Actor),
    /// What the first sends to the second on this lane waits until then.
    Clogged(Actor, Actor, Lane, Instant),
    /// These are cut off from all others; the cuts follow.
    Partitioned(Vec<Actor>),
    /// No link is cut or clogged any more.
    Healed,
    /// A call to the disk of a replica failed, or something was done to it.
    Disk(ReplicaId, String),
    /// A replica's numbers, as it says itself; only in a recording, and only when they change.
    Says(Standing),
    /// An oracle objects.
    Violated(Violation),
    /// The run ends because something did not come about.
    Failed(String),
    /// Something that was done to the world, or found in it.
    Note(String),
}

/// What can happen to a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It starts on the disk that is there.
    Started,
    /// It ends, and its peers are told.
    Crashed,
    /// It ends, and nobody is told.
    CrashedSilently,
    /// Its disk is emptied.
    Wiped,
    /// It does nothing until it goes on.
    Paused,
    /// It goes on.
    Resumed,
    /// Its writes wait.
    StorageStalled,
    /// Its writes go on.
    StorageResumed,
    /// It stopped by itself.
    Stopped(String),
    /// It could not start.
    Refused(String),
}

/// What a replica says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Which replica.
    pub replica: ReplicaId,
    /// The sub-protocol that it is in.
    pub status: StatusKind,
    /// Its view.
    pub view: View,
    /// The latest view whose complete log it has.
    pub log_view: View,
    /// The last op of its log.
    pub op_number: OpNumber,
    /// The last op that it knows to be committed.
    pub commit_number: OpNumber,
    /// The last op that it executed.
    pub applied: OpNumber,
    /// Whether it leads its view and admits requests.
    pub serving: bool,
}

/// An envelope in a few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// The network's number for it; its copies have the same.
    pub serial: u64,
    /// Who sent it.
    pub from: Actor,
    /// Whom it is for.
    pub to: Actor,
    /// What it is.
    pub kind: Kind,
    /// The view it is about.
    pub view: View,
    /// The op it is about: the last of its entries, the acknowledged or the committed one.
    pub op_number: OpNumber,
    /// Hash of the rest.
    pub content: u64,
}

/// Why an envelope vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// By chance.
    Chance,
    /// The link is cut.
    Cut,
    /// A rule made by hand says so.
    Rule,
    /// Nobody is there to receive it.
    Absent,
    /// It was on a connection that broke.
    Broken,
}

impl Packet {
    /// The numbers of `envelope` on its way.
    #[must_use]
    pub fn of(serial: u64, from: Actor, to: Actor, envelope: &Envelope) -> Self {
        let (view, op_number, content) = essence(&envelope.message);
        let view = view.unwrap_or(envelope.view);
        Self { serial, from, to, kind: envelope.message.kind(), view, op_number, content }
    }
}

/// The view that a message names itself, the op it is about, and one more telling number.
fn essence(message: &Message) -> (Option<View>, OpNumber, u64) {
    match message {
        Message::Register(m) => (None, OpNumber::ZERO, low(m.client.0)),
        Message::Request(m) => (None, m.session, m.request_number.0),
        Message::Reply(m) => (None, m.op_number, m.request_number.0),
        Message::Requests(m) => (None, m.session, m.first.0),
        Message::Replies(m) => {
            let last = m.replies.last().map(|reply| (reply.op_number, reply.request_number.0));
            let (op_number, number) = last.unwrap_or_default();
            (None, op_number, number)
        }
        Message::Rejected(m) => (None, OpNumber::ZERO, m.request_number.0),
        Message::Query(m) => (None, OpNumber::ZERO, m.request_number.0),
        Message::Answer(m) => (None, m.op_number, m.request_number.0),
        Message::Forward(_) | Message::ForwardReply(_) => (None, OpNumber::ZERO, 0),
        Message::Prepare(m) => {
            let last = m.entries.last().map(|entry| entry.header);
            let last = last.unwrap_or_default();
            (None, last.op_number, low(last.checksum.0) ^ m.commit.op_number.0)
        }
        Message::PrepareOk(m) => (None, m.op_number, low(m.checksum.0) ^ m.applied.0),
        Message::Commit(m) => (None, m.commit.op_number, m.heartbeat.0),
        Message::StartViewChange(m) => (Some(m.view), m.standing.op_number, 0),
        Message::DoViewChange(m) => (Some(m.view), m.op_number, m.log_view.0),
        Message::StartView(m) => (Some(m.view), m.op_number, m.commit_number.0),
        Message::Handoff(m) => (Some(m.view), m.op_number, low(m.checksum.0)),
        Message::GetView(m) => (Some(m.view), OpNumber::ZERO, low(m.nonce.0)),
        Message::Ping(m) | Message::Pong(m) => (None, m.standing.op_number, m.sent_at),
        Message::GetHeaders(m) => (None, m.through, m.request.0),
        Message::Headers(m) => {
            let last = m.headers.last().map_or(OpNumber::ZERO, |header| header.op_number);
            (None, last, m.request.0)
        }
        Message::GetEntries(m) => (None, OpNumber::ZERO, m.request.0),
        Message::Entries(m) => {
            let last = m.entries.last().map_or(OpNumber::ZERO, |entry| entry.header.op_number);
            (None, last, m.request.0)
        }
        Message::Released(m) => (None, m.checkpoint.op_number, m.request.0),
        Message::GetSnapshot(m) => (None, m.checkpoint.op_number, m.request.0),
        Message::Snapshot(m) => (None, m.checkpoint.op_number, m.request.0),
        Message::ReadIndex(m) => (None, OpNumber::ZERO, m.request.0),
        Message::ReadIndexOk(m) => (None, m.op_number, m.request.0),
        Message::Hello(m) => (None, OpNumber::ZERO, low(m.nonce.0)),
        Message::HelloOk(m) => (None, OpNumber::ZERO, low(m.disk.0)),
        Message::Found(m) => (None, OpNumber::ZERO, low(m.nonce.0)),
        Message::FoundOk(m) => (None, OpNumber::ZERO, low(m.nonce.0)),
        Message::Recovery(m) => (Some(m.view), OpNumber::ZERO, low(m.nonce.0)),
        Message::RecoveryResponse(m) => {
            let op_number = m.start.as_ref().map_or(OpNumber::ZERO, |start| start.op_number);
            (None, op_number, low(m.nonce.0))
        }
        Message::GetCrashVector(m) => (None, OpNumber::ZERO, low(m.nonce.0)),
        Message::CrashVectorIs(m) => (None, OpNumber::ZERO, low(m.nonce.0)),
    }
}

fn low(number: u128) -> u64 {
    u64::try_from(number & u128::from(u64::MAX)).unwrap_or(0)
}

impl From<&ReplicaStatus> for Standing {
    fn from(status: &ReplicaStatus) -> Self {
        Self {
            replica: status.replica,
            status: status.status,
            view: status.view,
            log_view: status.log_view,
            op_number: status.op_number,
            commit_number: status.commit_number,
            applied: status.applied,
            serving: status.serving,
        }
    }
}
