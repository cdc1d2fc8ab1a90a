//! All numbers of a message in words; of payloads only their length.

use vr_core::model::{
    entries::Wanted,
    message::{
        Committed, DoViewChange, Envelope, Forward, ForwardReply, Message, Outcome, Prepare,
        PrepareOk, Request, Standing, StartView,
    },
    snapshot::SnapshotContent,
    types::{Checksum, OpNumber},
};

/// What `envelope` says besides its kind, its ends and its view.
#[must_use]
pub fn detail_of(envelope: &Envelope) -> String {
    let said = match &envelope.message {
        Message::Prepare(_)
        | Message::PrepareOk(_)
        | Message::Commit(_)
        | Message::StartViewChange(_)
        | Message::DoViewChange(_)
        | Message::StartView(_)
        | Message::GetView(_)
        | Message::Ping(_)
        | Message::Pong(_)
        | Message::Handoff(_) => of_replicas(&envelope.message),
        Message::GetHeaders(_)
        | Message::Headers(_)
        | Message::GetEntries(_)
        | Message::Entries(_)
        | Message::Released(_)
        | Message::GetSnapshot(_)
        | Message::Snapshot(_)
        | Message::ReadIndex(_)
        | Message::ReadIndexOk(_)
        | Message::Hello(_)
        | Message::HelloOk(_)
        | Message::Found(_)
        | Message::FoundOk(_) => of_transfer(&envelope.message),
        Message::Recovery(_)
        | Message::RecoveryResponse(_)
        | Message::GetCrashVector(_)
        | Message::CrashVectorIs(_) => of_recovery(&envelope.message),
        Message::Register(_)
        | Message::Request(_)
        | Message::Reply(_)
        | Message::Requests(_)
        | Message::Replies(_)
        | Message::Rejected(_)
        | Message::Query(_)
        | Message::Answer(_)
        | Message::Forward(_)
        | Message::ForwardReply(_) => of_clients(&envelope.message),
    };
    let (epoch, incarnation, view) = (envelope.epoch, envelope.incarnation, envelope.view);
    let ground = format!("durable view {view}, epoch {epoch}, incarnation {incarnation}");
    if said.is_empty() { ground } else { format!("{said}, {ground}") }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the caller sorts the kinds, all of them")]
fn of_clients(message: &Message) -> String {
    match message {
        Message::Register(m) => format!("nonce {}", short(m.nonce.0)),
        Message::Request(m) => request(m),
        Message::Reply(m) => {
            format!("request {}, op {}, {}", m.request_number, m.op_number, outcome(&m.outcome))
        }
        Message::Requests(m) => {
            let (count, bytes) = (m.operations.len(), m.bytes());
            format!("session {}, {count} requests from {}, {bytes} bytes", m.session, m.first)
        }
        Message::Replies(m) => {
            let replies = m.replies.iter().map(|reply| {
                let (number, op, told) =
                    (reply.request_number, reply.op_number, outcome(&reply.outcome));
                format!("request {number}, op {op}, {told}")
            });
            replies.collect::<Vec<_>>().join("; ")
        }
        Message::Rejected(m) => format!("request {}, {:?}", m.request_number, m.reason),
        Message::Query(m) => {
            format!("query {}, {:?}, {} bytes", m.request_number, m.read, m.query.len())
        }
        Message::Answer(m) => {
            let bytes = m.answer.as_ref().map_or(0, |answer| answer.len());
            format!("query {}, op {}, {bytes} bytes", m.request_number, m.op_number)
        }
        Message::Forward(Forward::Request(m)) => request(m),
        Message::Forward(Forward::Register(m)) => {
            format!("registration, nonce {}", short(m.nonce.0))
        }
        Message::ForwardReply(ForwardReply::Reply(m)) => {
            format!("request {}, op {}, {}", m.request_number, m.op_number, outcome(&m.outcome))
        }
        Message::ForwardReply(ForwardReply::Rejected(m)) => {
            format!("request {}, {:?}", m.request_number, m.reason)
        }
        _ => String::new(),
    }
}

fn request(m: &Request) -> String {
    let bytes = m.operation.len();
    format!("session {}, request {}, {bytes} bytes", m.session, m.request_number)
}

const fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Executed(_) => "executed",
        Outcome::Malformed => "malformed",
        Outcome::Registered => "registered",
        Outcome::Evicted => "evicted",
        Outcome::Forgotten => "forgotten",
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the caller sorts the kinds, all of them")]
fn of_replicas(message: &Message) -> String {
    match message {
        Message::Prepare(m) => prepare(m),
        Message::PrepareOk(m) => prepare_ok(m),
        Message::Commit(m) => {
            let (commit, agreed) = (commit(m.commit), m.agreed.op_number);
            let standing = standing(&m.standing);
            format!("{commit}, agreed {agreed}, heartbeat {}, {standing}", m.heartbeat)
        }
        Message::StartViewChange(m) => {
            format!("leave view {}, {:?}, {}", m.view, m.reason, standing(&m.standing))
        }
        Message::DoViewChange(m) => do_view_change(m),
        Message::StartView(m) => start_view(m),
        Message::GetView(m) => format!("from view {} on, nonce {}", m.view, short(m.nonce.0)),
        Message::Handoff(m) => {
            format!("to view {}, op {} {}", m.view, m.op_number, short(m.checksum.0))
        }
        Message::Ping(m) | Message::Pong(m) => {
            format!("{}, sent at {}", standing(&m.standing), m.sent_at)
        }
        _ => String::new(),
    }
}

fn prepare(m: &Prepare) -> String {
    let first = m.entries.first().map_or(OpNumber::ZERO, |entry| entry.header.op_number);
    let last = m.entries.last().map_or(OpNumber::ZERO, |entry| entry.header.op_number);
    let bytes: u64 = m.entries.iter().map(|entry| entry.header.entry_bytes()).sum();
    let count = m.entries.len();
    let commit = commit(m.commit);
    format!("ops {first} to {last} ({count}), {bytes} bytes, {commit}, heartbeat {}", m.heartbeat)
}

fn prepare_ok(m: &PrepareOk) -> String {
    let own = m.standing.as_ref().map_or_else(String::new, |own| format!(", {}", standing(own)));
    let (sum, checkpoint) = (checksum(m.checksum), m.checkpoint.op_number);
    format!(
        "op {} {sum}, applied {}, checkpoint {checkpoint}, heartbeat {}{own}",
        m.op_number, m.applied, m.heartbeat
    )
}

fn do_view_change(m: &DoViewChange) -> String {
    format!(
        "to view {}, log view {}, op {} {}, commit {}, checkpoint {}, {} headers, {:?}{}",
        m.view,
        m.log_view,
        m.op_number,
        checksum(m.head),
        m.commit_number,
        m.checkpoint.op_number,
        m.suffix.len(),
        m.trust,
        if m.unbroken { ", unbroken" } else { "" }
    )
}

fn start_view(m: &StartView) -> String {
    let nonce = m.nonce.map_or_else(String::new, |nonce| format!(", nonce {}", short(nonce.0)));
    format!(
        "view {}, op {} {}, commit {}, checkpoint {}, {} headers{nonce}",
        m.view,
        m.op_number,
        checksum(m.head),
        m.commit_number,
        m.checkpoint.op_number,
        m.suffix.len()
    )
}

fn snapshot(content: &SnapshotContent) -> String {
    match content {
        SnapshotContent::Gone => "nothing".to_owned(),
        SnapshotContent::Manifest { bytes, from, chunks } => {
            format!("{} checksums from chunk {from} on, {bytes} bytes in all", chunks.len())
        }
        SnapshotContent::Chunk { index, bytes } => {
            format!("chunk {index}, {} bytes", bytes.len())
        }
        SnapshotContent::Compressed { index, block } => {
            format!("chunk {index}, compressed to {} bytes", block.len())
        }
    }
}

fn commit(committed: Committed) -> String {
    format!("commit {} {}", committed.op_number, checksum(committed.checksum))
}

fn standing(standing: &Standing) -> String {
    let Standing { log_view, op_number, status, heard } = standing;
    format!("{status:?}, log view {log_view}, log op {op_number}, hears {}", heard.len())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the caller sorts the kinds, all of them")]
fn of_transfer(message: &Message) -> String {
    match message {
        Message::GetHeaders(m) => {
            let sum = checksum(m.checksum);
            format!("question {}, ops {} to {} {sum}", m.request, m.from, m.through)
        }
        Message::Headers(m) => format!("question {}, {} headers", m.request, m.headers.len()),
        Message::GetEntries(m) => {
            let wanted = match &m.wanted {
                Wanted::Exact(exact) => format!("{} ops by checksum", exact.len()),
                Wanted::From(op) => format!("from op {op} on"),
            };
            format!("question {}, {wanted}, at most {} bytes", m.request, m.bytes_max)
        }
        Message::Entries(m) => format!("question {}, {} entries", m.request, m.entries.len()),
        Message::Released(m) => {
            format!("question {}, checkpoint {}", m.request, m.checkpoint.op_number)
        }
        Message::GetSnapshot(m) => {
            format!("question {}, {:?} of checkpoint {}", m.request, m.part, m.checkpoint.op_number)
        }
        Message::Snapshot(m) => {
            let (question, op_number) = (m.request, m.checkpoint.op_number);
            format!("question {question}, {} of checkpoint {op_number}", snapshot(&m.content))
        }
        Message::ReadIndex(m) => format!("question {}", m.request),
        Message::ReadIndexOk(m) => format!("question {}, op {}", m.request, m.op_number),
        Message::Hello(m) => format!("nonce {}", short(m.nonce.0)),
        Message::HelloOk(m) => {
            let nonce = m.nonce.map_or_else(|| "none".to_owned(), |nonce| short(nonce.0));
            let certified = if m.certificate.is_some() { "with" } else { "without" };
            format!("nonce {nonce}, disk {}, {certified} certificate", short(m.disk.0))
        }
        Message::Found(m) => format!("nonce {}, {} disks", short(m.nonce.0), m.disks.len()),
        Message::FoundOk(m) => format!("nonce {}", short(m.nonce.0)),
        _ => String::new(),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the caller sorts the kinds, all of them")]
fn of_recovery(message: &Message) -> String {
    match message {
        Message::Recovery(m) => {
            let led = if m.primary_restarted { ", led it" } else { "" };
            let (nonce, view, log_view) = (short(m.nonce.0), m.view, m.log_view);
            format!("nonce {nonce}, promised {view}, lost the log of {log_view}{led}")
        }
        Message::RecoveryResponse(m) => match &m.start {
            Some(start) => format!("nonce {}, {}", short(m.nonce.0), start_view(start)),
            None => format!("nonce {}, not the primary", short(m.nonce.0)),
        },
        Message::GetCrashVector(m) => format!("nonce {}", short(m.nonce.0)),
        Message::CrashVectorIs(m) => format!("nonce {}", short(m.nonce.0)),
        _ => String::new(),
    }
}

/// The first eight digits: enough to tell two of them apart.
fn short(number: u128) -> String {
    format!("{:08x}", number >> 96)
}

fn checksum(checksum: Checksum) -> String {
    short(checksum.0)
}
