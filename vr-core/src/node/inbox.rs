//! What waits for one end of the in-process network: a queue per lane, with bounded room for each
//! sender, and one waker.

use core::task::{Context, Poll, Waker};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    model::{
        entry::Entry,
        kind::Lane,
        message::{Envelope, Forward, ForwardReply, Message},
        payload::length,
        snapshot::SnapshotContent,
        types::Peer,
    },
    node::lock::lock,
    ports::transport::{Closed, Received},
};

/// Envelopes that one lane holds of one sender, so that a flood of one leaves room for the others.
const LANE_ITEMS_MAX: usize = 65_536;
/// Bytes of payloads that one lane holds of one sender.
const LANE_BYTES_MAX: u64 = 64 << 20;
/// Senders without anything in a lane that it remembers, so as not to meet them anew each time.
const REMEMBERED_MAX: usize = 8;
/// Items that one call returns.
const TAKE_ITEMS_MAX: usize = 256;
/// Bytes of payloads after which a call returns.
const TAKE_BYTES_MAX: u64 = 1 << 20;

/// Why an envelope was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    TooLarge,
    Closed,
}

/// What waits for one end. Every method returns the waker to wake once no lock is held.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    contents: Mutex<Contents>,
    /// As in `contents`, for whoever wants to know nothing else.
    closed: AtomicBool,
    /// Nothing has changed since somebody found nothing and left a waker; written under the lock.
    calm: AtomicBool,
}

#[derive(Debug, Default)]
struct Contents {
    /// At most a disconnection and a connection per peer.
    events: VecDeque<Received>,
    control: Queue,
    data: Queue,
    bulk: Queue,
    closed: bool,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Received>,
    /// Bytes of payloads in `items`.
    bytes: u64,
    /// What is taken up by those who have something in `items`, and by some who had.
    rooms: BTreeMap<Peer, Room>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Room {
    items: usize,
    bytes: u64,
}

impl Queue {
    fn push(&mut self, from: Peer, envelope: Box<Envelope>, bytes: u64) -> Result<(), Refused> {
        let room = self.rooms.entry(from).or_default();
        let after = Room { items: room.items + 1, bytes: room.bytes.saturating_add(bytes) };
        if after.items > LANE_ITEMS_MAX || after.bytes > LANE_BYTES_MAX {
            return Err(Refused::Full);
        }
        *room = after;
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.push_back(Received::Envelope { from, envelope });
        Ok(())
    }

    /// Moves what fits into `into`: everything at once where that fits, which is the rule.
    fn take(&mut self, into: &mut Vec<Received>, allowance: &mut Room) {
        if self.items.len() <= allowance.items && self.bytes <= allowance.bytes {
            allowance.items -= self.items.len();
            allowance.bytes -= self.bytes;
            if into.is_empty() {
                // Both change their memory, so nothing is copied.
                let emptied = VecDeque::from(core::mem::take(into));
                *into = Vec::from(core::mem::replace(&mut self.items, emptied));
            } else {
                into.extend(self.items.drain(..));
            }
            self.clear_rooms();
            return;
        }
        while allowance.items > 0 && allowance.bytes > 0 {
            let Some(item) = self.items.pop_front() else { break };
            let bytes = leave(&mut self.rooms, &item);
            self.bytes = self.bytes.saturating_sub(bytes);
            allowance.items -= 1;
            allowance.bytes = allowance.bytes.saturating_sub(bytes);
            into.push(item);
        }
    }

    /// Nobody has anything here any more.
    fn clear_rooms(&mut self) {
        self.bytes = 0;
        if self.rooms.len() > REMEMBERED_MAX {
            self.rooms.clear();
        }
        self.rooms.values_mut().for_each(|room| *room = Room::default());
    }
}

/// Gives the room of an item back; returns how many bytes it took up.
fn leave(rooms: &mut BTreeMap<Peer, Room>, item: &Received) -> u64 {
    let Received::Envelope { from, envelope } = item else { return 0 };
    let bytes = payload_bytes(&envelope.message);
    if let Some(room) = rooms.get_mut(from) {
        room.items = room.items.saturating_sub(1);
        room.bytes = room.bytes.saturating_sub(bytes);
        if room.items == 0 {
            rooms.remove(from);
        }
    }
    bytes
}

impl Inbox {
    /// Adds an envelope behind the others of its lane.
    pub(crate) fn push(
        &self,
        from: Peer,
        lane: Lane,
        envelope: Box<Envelope>,
        bytes_max: u64,
    ) -> Result<Option<Waker>, Refused> {
        let bytes = payload_bytes(&envelope.message);
        if bytes > bytes_max {
            return Err(Refused::TooLarge);
        }
        let mut contents = lock(&self.contents);
        if contents.closed {
            return Err(Refused::Closed);
        }
        let queue = match lane {
            Lane::Control => &mut contents.control,
            Lane::Data => &mut contents.data,
            Lane::Bulk => &mut contents.bulk,
        };
        queue.push(from, envelope, bytes)?;
        Ok(self.stir(&mut contents))
    }

    /// A way to `peer` opened.
    pub(crate) fn connected(&self, peer: Peer) -> Option<Waker> {
        let mut contents = lock(&self.contents);
        contents.events.push_back(Received::Connected(peer));
        self.stir(&mut contents)
    }

    /// The way to `peer` broke; if nobody has heard yet that it opened, nobody hears of it.
    pub(crate) fn disconnected(&self, peer: Peer) -> Option<Waker> {
        let mut contents = lock(&self.contents);
        let unheard = Received::Connected(peer);
        match contents.events.iter().rposition(|event| *event == unheard) {
            Some(position) => {
                contents.events.remove(position);
            }
            None => contents.events.push_back(Received::Disconnected(peer)),
        }
        self.stir(&mut contents)
    }

    /// Nothing arrives any more, but what is here can still be taken.
    pub(crate) fn seal(&self) -> Option<Waker> {
        let mut contents = lock(&self.contents);
        contents.closed = true;
        self.closed.store(true, Ordering::Release);
        self.stir(&mut contents)
    }

    /// Nothing arrives any more, and what is here is dropped.
    pub(crate) fn close(&self) -> Option<Waker> {
        let mut contents = lock(&self.contents);
        let waker = self.stir(&mut contents);
        *contents = Contents { closed: true, ..Contents::default() };
        self.closed.store(true, Ordering::Release);
        waker
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether a look would find nothing, and the waker that was left last is still there.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Acquire)
    }

    /// The waker that was left is not the right one any more.
    pub(crate) fn forget_waker(&self) {
        // Dropped behind the lock, as every waker.
        let _waker = self.stir(&mut lock(&self.contents));
    }

    /// Something changes; the waker to wake once no lock is held.
    fn stir(&self, contents: &mut Contents) -> Option<Waker> {
        self.calm.store(false, Ordering::Release);
        contents.waker.take()
    }

    /// Takes out what is there, or waits for it.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        into: &mut Vec<Received>,
    ) -> Poll<Result<(), Closed>> {
        let mut contents = lock(&self.contents);
        let before = into.len();
        contents.take(into);
        if into.len() > before {
            return Poll::Ready(Ok(()));
        }
        if contents.closed {
            return Poll::Ready(Err(Closed));
        }
        match &mut contents.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        self.calm.store(true, Ordering::Release);
        Poll::Pending
    }
}

impl Contents {
    fn take(&mut self, into: &mut Vec<Received>) {
        let items = TAKE_ITEMS_MAX.saturating_sub(self.events.len());
        let mut allowance = Room { items, bytes: TAKE_BYTES_MAX };
        if !self.events.is_empty() {
            into.extend(self.events.drain(..));
        }
        for queue in [&mut self.control, &mut self.data, &mut self.bulk] {
            if !queue.items.is_empty() {
                queue.take(into, &mut allowance);
            }
        }
    }
}

/// Bytes of operations, replies and entries that a message carries.
fn payload_bytes(message: &Message) -> u64 {
    match message {
        Message::Request(request) | Message::Forward(Forward::Request(request)) => {
            length(&request.operation)
        }
        Message::Reply(reply) | Message::ForwardReply(ForwardReply::Reply(reply)) => {
            reply.outcome.bytes()
        }
        Message::Requests(requests) => requests.bytes(),
        Message::Replies(replies) => replies.bytes(),
        Message::Query(query) => length(&query.query),
        Message::Answer(answer) => answer.answer.as_deref().map_or(0, length),
        Message::Prepare(prepare) => entries_bytes(&prepare.entries),
        Message::Entries(entries) => entries_bytes(&entries.entries),
        Message::Snapshot(snapshot) => match &snapshot.content {
            SnapshotContent::Chunk { bytes, .. }
            | SnapshotContent::Compressed { block: bytes, .. } => length(bytes),
            SnapshotContent::Manifest { chunks, .. } => {
                u64::try_from(chunks.len()).unwrap_or(u64::MAX).saturating_mul(16)
            }
            SnapshotContent::Gone => 0,
        },
        Message::Register(_)
        | Message::Rejected(_)
        | Message::Forward(Forward::Register(_))
        | Message::ForwardReply(ForwardReply::Rejected(_))
        | Message::PrepareOk(_)
        | Message::Commit(_)
        | Message::StartViewChange(_)
        | Message::DoViewChange(_)
        | Message::StartView(_)
        | Message::GetView(_)
        | Message::Ping(_)
        | Message::Pong(_)
        | Message::Handoff(_)
        | Message::GetHeaders(_)
        | Message::Headers(_)
        | Message::GetEntries(_)
        | Message::Released(_)
        | Message::GetSnapshot(_)
        | Message::ReadIndex(_)
        | Message::ReadIndexOk(_)
        | Message::Hello(_)
        | Message::HelloOk(_)
        | Message::Found(_)
        | Message::FoundOk(_)
        | Message::Recovery(_)
        | Message::RecoveryResponse(_)
        | Message::GetCrashVector(_)
        | Message::CrashVectorIs(_) => 0,
    }
}

fn entries_bytes(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.header.entry_bytes()).sum()
}
