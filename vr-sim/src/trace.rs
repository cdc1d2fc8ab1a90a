//! What happened, in order: a hash over everything and the last events in words.

use core::{
    fmt,
    hash::{Hash, Hasher},
};
use std::collections::VecDeque;

use vr_core::model::{
    kind::Kind,
    message::{Envelope, Message},
    time::Instant,
    types::{OpNumber, ReplicaId, View},
};

use crate::actor::Actor;

/// How many events are kept to be printed when something fails.
const EVENTS_KEPT: usize = 200;

/// The events of a run: all of them in the fingerprint, the last ones in full.
#[derive(Debug, Default)]
pub struct Trace {
    fingerprint: Fingerprint,
    count: u64,
    last: VecDeque<(Instant, Event)>,
}

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
    /// Something that was done to the world, or found in it.
    Note(String),
}

/// An envelope in a few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
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
    pub fn of(from: Actor, to: Actor, envelope: &Envelope) -> Self {
        let (view, op_number, content) = essence(&envelope.message);
        let view = view.unwrap_or(envelope.view);
        Self { from, to, kind: envelope.message.kind(), view, op_number, content }
    }
}

/// The view that a message names itself, the op it is about, and one more telling number.
fn essence(message: &Message) -> (Option<View>, OpNumber, u64) {
    match message {
        Message::Register(m) => (None, OpNumber::ZERO, low(m.client.0)),
        Message::Request(m) => (None, m.session, m.request_number.0),
        Message::Reply(m) => (None, m.op_number, m.request_number.0),
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
        Message::ReadIndex(m) => (None, OpNumber::ZERO, m.request.0),
        Message::ReadIndexOk(m) => (None, m.op_number, m.request.0),
        Message::Hello(m) => (None, OpNumber::ZERO, low(m.nonce.0)),
        Message::HelloOk(m) => (None, OpNumber::ZERO, low(m.disk.0)),
        Message::Found(m) => (None, OpNumber::ZERO, low(m.nonce.0)),
        Message::FoundOk(m) => (None, OpNumber::ZERO, low(m.nonce.0)),
    }
}

fn low(number: u128) -> u64 {
    u64::try_from(number & u128::from(u64::MAX)).unwrap_or(0)
}

impl Trace {
    /// Adds an event that happened at `at`.
    pub fn record(&mut self, at: Instant, event: Event) {
        at.hash(&mut self.fingerprint);
        event.hash(&mut self.fingerprint);
        self.count += 1;
        if self.last.len() == EVENTS_KEPT {
            self.last.pop_front();
        }
        self.last.push_back((at, event));
    }

    /// A hash over all events so far; equal for equal runs.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.finish()
    }

    /// How many events there were.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The last `lines` events in words, oldest first.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let mut text = String::new();
        let skipped = self.last.len().saturating_sub(lines);
        for (at, event) in self.last.iter().skip(skipped) {
            text.push_str(&format!("{:>14} {event}\n", at.to_string()));
        }
        text
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, kind, view, op_number, content: _ } = self;
        write!(f, "{from} > {to}  {kind:?} v{view} op {op_number}")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(packet) => write!(f, "sent      {packet}"),
            Self::Delivered(packet) => write!(f, "delivered {packet}"),
            Self::Lost(packet, why) => write!(f, "lost      {packet} ({why:?})"),
            Self::Held(packet) => write!(f, "held      {packet}"),
            Self::Connected(one, other) => write!(f, "connected {one} - {other}"),
            Self::Disconnected(one, other) => write!(f, "broken    {one} - {other}"),
            Self::Stored { replica, entries, op_number, view, log_view } => write!(
                f,
                "stored    r{replica} {entries} entries, op {op_number} view {view} log view {log_view}"
            ),
            Self::Applied { replica, op_number, tag } => {
                write!(f, "applied   r{replica} op {op_number} (call {tag})")
            }
            Self::Answered(call, how) => write!(f, "answered  call {call}: {how}"),
            Self::Note(text) => write!(f, "---       {text}"),
        }
    }
}

/// A hash that is the same in every build: multiply, rotate, fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (place, byte) in word.iter_mut().zip(chunk) {
                *place = *byte;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_depends_on_the_order_of_events() {
        let trace = |notes: [&str; 2]| {
            let mut trace = Trace::default();
            for note in notes {
                trace.record(Instant::ZERO, Event::Note(note.into()));
            }
            trace.fingerprint()
        };
        assert_eq!(trace(["a", "b"]), trace(["a", "b"]));
        assert_ne!(trace(["a", "b"]), trace(["b", "a"]));
    }

    #[test]
    fn the_tail_is_bounded() {
        let mut trace = Trace::default();
        for number in 0..1000 {
            trace.record(Instant(number), Event::Note(number.to_string()));
        }
        assert_eq!(trace.count(), 1000);
        assert_eq!(trace.tail(usize::MAX).lines().count(), EVENTS_KEPT);
        assert!(trace.tail(1).trim_end().ends_with("999"));
    }
}
