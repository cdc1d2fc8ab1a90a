//! One position of the log: a checksummed, chained header and the payload it names.

use core::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::types::{
    Checksum, ClientId, Epoch, GroupId, OpNumber, RequestNumber, View, Viewstamp,
};

/// Bytes of an encoded [`EntryHeader`]; on the wire less may be said of it.
pub const ENTRY_HEADER_BYTES: usize = 128;

/// What an entry asks the replicated state to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Nothing.
    #[default]
    Noop,
    /// Execute the payload for a client.
    Request,
    /// Open a session for a client; the payload is the 16 bytes of the nonce.
    Register,
    /// Execute several operations for a client, in order and with nothing in between; the payload
    /// is what [`join`](crate::model::many::join) makes of them.
    Many,
}

impl EntryKind {
    /// That of a request, for several operations or for one.
    #[must_use]
    pub const fn of_request(many: bool) -> Self {
        if many { Self::Many } else { Self::Request }
    }

    /// Whether it is that of a request, for several operations or for one.
    #[must_use]
    pub const fn is_request(self) -> bool {
        matches!(self, Self::Request | Self::Many)
    }
}

/// Everything about an entry but its payload; 128 bytes when encoded.
///
/// Invariants: `checksum` covers every other field; `parent` is the checksum of the entry before,
/// so that a chain of headers verifies without bodies.
///
/// # Source
/// VRR §4.1 (op number, request); the chain is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EntryHeader {
    /// XXH3-128 of the encoded header without this field.
    pub checksum: Checksum,
    /// Checksum of the entry before this one.
    pub parent: Checksum,
    /// XXH3-128 of the payload, made where the operation entered the group, or before that by the
    /// client: of operations that came in one message and were placed as they came.
    pub payload_checksum: Checksum,
    /// Who asked; zero for entries that no client asked for.
    pub client: ClientId,
    /// The view that prepared the entry.
    pub view: View,
    /// Its place in the log.
    pub op_number: OpNumber,
    /// Wall time the primary gave it, in nanoseconds since 1970; strictly growing along the log.
    pub time: u64,
    /// The op that registered the client; in a registration, how many sessions are kept from it on:
    /// the log says so, and not the configuration of whoever executes it again.
    pub session: OpNumber,
    /// The client's number for it; zero in a registration.
    pub request_number: RequestNumber,
    /// The low half of the group's id, so that a stray file is noticed.
    pub group: u64,
    /// The membership period.
    pub epoch: Epoch,
    /// Bytes of the payload.
    pub payload_length: u32,
    /// What the entry asks for.
    pub kind: EntryKind,
}

impl EntryHeader {
    /// The identity of the entry.
    #[must_use]
    pub const fn viewstamp(&self) -> Viewstamp {
        Viewstamp { view: self.view, op_number: self.op_number }
    }

    /// Whether both are for requests of the same client's session, this one for the later.
    #[must_use]
    pub fn follows(&self, before: &Self) -> bool {
        let of = |it: &Self| (it.client, it.session);
        self.kind.is_request()
            && before.kind.is_request()
            && of(self) == of(before)
            && self.request_number > before.request_number
    }

    /// Bytes that the entry takes on disk, and on the wire at most: header and payload.
    #[must_use]
    pub fn entry_bytes(&self) -> u64 {
        u64::from(self.payload_length) + 128
    }

    /// Half of a group's id that every entry carries.
    #[must_use]
    pub fn group_mark(group: GroupId) -> u64 {
        u64::try_from(group.0 & u128::from(u64::MAX)).unwrap_or(0)
    }
}

/// One position of the log, with its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What it is and where it stands.
    pub header: EntryHeader,
    /// The operation's bytes, shared with the frame or file they were read from.
    pub payload: Bytes,
}

impl Entry {
    /// Bytes that it takes on disk, and on the wire at most: header and payload.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.header.entry_bytes()
    }

    /// Whether the payload is here, and not on disk only.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.header.payload_length == 0 || !self.payload.is_empty()
    }
}

/// Entries of consecutive ops: appended together, and from then on shared by everybody who works on
/// them, because copying what passes through a log several times is most of the work.
#[derive(Clone, Debug, Default)]
pub struct Run {
    entries: Arc<Vec<Entry>>,
    /// What is of this run among `entries`: `from <= to <= entries.len()`.
    from: usize,
    to: usize,
    /// Bytes of its entries, header and payload, so that they are counted once.
    bytes: u64,
    /// Every payload was there when it was made, and nothing has changed since.
    whole: bool,
}

impl Run {
    /// The `count` entries from position `from` on, or as many as there are; nothing is copied.
    #[must_use]
    pub fn part(&self, from: usize, count: usize) -> Self {
        if from == 0 && count >= self.len() {
            return self.clone();
        }
        let from = self.from.saturating_add(from).min(self.to);
        let to = from.saturating_add(count).min(self.to);
        let entries = Arc::clone(&self.entries);
        let bytes = entries.get(from..to).unwrap_or_default().iter().map(Entry::bytes).sum();
        Self { entries, from, to, bytes, whole: self.whole }
    }

    /// How many entries it has; known without a look at them.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.to - self.from
    }

    /// Whether it has no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Bytes that its entries take on disk, and on the wire at most.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of its entries' payloads.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        let headers = u64::try_from(self.len()).unwrap_or(u64::MAX).saturating_mul(128);
        self.bytes.saturating_sub(headers)
    }

    /// Bytes that its entries keep in memory, at least: payloads count where all are there.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        if self.whole { self.bytes } else { self.bytes.saturating_sub(self.payload_bytes()) }
    }

    /// Whether every payload is there for certain.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// The entries, whose payloads may be changed; copied first if somebody else holds them, too.
    pub fn to_mut(&mut self) -> &mut [Entry] {
        self.whole = false;
        Arc::make_mut(&mut self.entries).get_mut(self.from..self.to).unwrap_or_default()
    }
}

impl Deref for Run {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        self.entries.get(self.from..self.to).unwrap_or_default()
    }
}

impl From<Vec<Entry>> for Run {
    fn from(entries: Vec<Entry>) -> Self {
        let (mut bytes, mut whole) = (0, true);
        for entry in &entries {
            bytes += entry.bytes();
            whole &= entry.is_whole();
        }
        Self { from: 0, to: entries.len(), entries: Arc::new(entries), bytes, whole }
    }
}

impl<'a> IntoIterator for &'a Run {
    type Item = &'a Entry;
    type IntoIter = core::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        let is_same = Arc::ptr_eq(&self.entries, &other.entries);
        (is_same && (self.from, self.to) == (other.from, other.to)) || **self == **other
    }
}

impl Eq for Run {}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(op: u64) -> Entry {
        let header = EntryHeader { op_number: OpNumber(op), ..EntryHeader::default() };
        Entry { header, payload: Bytes::new() }
    }

    fn ops(run: &Run) -> Vec<u64> {
        run.iter().map(|entry| entry.header.op_number.0).collect()
    }

    #[test]
    fn a_part_of_a_run_is_within_it() {
        let run = Run::from((1..=5).map(entry).collect::<Vec<_>>());
        let middle = run.part(1, 3);
        assert_eq!((ops(&middle), ops(&middle.part(2, 9))), (vec![2, 3, 4], vec![4]));
        assert!(middle.part(9, 1).is_empty() && Run::default().part(0, 1).is_empty());
    }

    #[test]
    fn a_run_knows_its_bytes_and_whether_a_payload_is_missing() {
        let with = |payload: &'static [u8]| Entry::new(EntryHeader::default(), payload.into());
        let run = Run::from(vec![with(b""), with(b"four"), with(b"two")]);
        assert_eq!((run.bytes(), run.part(1, 1).bytes(), run.part(3, 1).bytes()), (391, 132, 0));
        let mut bare = run.clone();
        assert!(run.is_whole() && bare.part(0, 2).is_whole());
        bare.to_mut()[1].payload = Bytes::new();
        assert!(run.is_whole() && !bare.is_whole() && !Run::from(bare.to_vec()).is_whole());
        assert_eq!((run.memory_bytes(), bare.memory_bytes()), (391, 3 * 128));
        assert_eq!(
            (bare.bytes(), bare.payload_bytes(), run.part(1, 1).payload_bytes()),
            (391, 7, 4)
        );
    }

    #[test]
    fn who_changes_a_run_changes_it_for_nobody_else() {
        let run = Run::from(vec![entry(1), entry(2)]);
        let mut second = run.part(1, 1);
        for entry in second.to_mut() {
            entry.payload = Bytes::from_static(b"x");
        }
        assert!(run.iter().all(|entry| entry.payload.is_empty()));
        assert_eq!((second.len(), &second[0].payload[..]), (1, &b"x"[..]));
    }
}
