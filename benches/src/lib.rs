//! Inputs that several benchmarks share: entries and messages as a busy group has them.

pub mod load;

use bytes::Bytes;
use vr_core::{
    Context, Malformed, QueryContext, RawStateMachine, SnapshotError, SnapshotReader,
    SnapshotWriter,
    model::{
        certificate::{CertificateHash, CrashVector},
        entry::{Entry, EntryHeader, EntryKind},
        message::{Committed, Envelope, Message, Prepare, Sender},
        types::{
            Checksum, ClientId, Epoch, GroupId, HeartbeatNumber, Incarnation, OpNumber, ReplicaId,
            RequestNumber, View,
        },
    },
};

/// Bytes of the payloads that every benchmark uses: a small and a large operation.
pub const PAYLOAD_BYTES: [usize; 2] = [256, 4096];

/// The client of every entry.
const CLIENT: ClientId = ClientId(7);

/// A chained run: the registration of a client, then `count` of its requests, each with
/// `payload_bytes` of payload.
#[must_use]
pub fn entries(count: u64, payload_bytes: usize) -> Vec<Entry> {
    let payload = Bytes::from(vec![0x5a; payload_bytes]);
    let mut parent = Checksum::ZERO;
    let chained = (0..=count).map(|number| {
        let (kind, payload) = match number {
            0 => (EntryKind::Register, Bytes::from_static(&[1; 16])),
            _ => (EntryKind::Request, payload.clone()),
        };
        let header = EntryHeader {
            parent,
            client: CLIENT,
            view: View(3),
            op_number: OpNumber(number + 1),
            time: number + 1,
            session: OpNumber(u64::from(number > 0)),
            request_number: RequestNumber(number),
            kind,
            ..EntryHeader::default()
        };
        let entry = Entry::new(header, payload);
        parent = entry.header.checksum;
        entry
    });
    chained.collect()
}

/// A primary's message that carries `entries`.
#[must_use]
pub fn prepare(entries: Vec<Entry>) -> Envelope {
    Envelope {
        group: GroupId(1),
        certificate: CertificateHash(2),
        epoch: Epoch::ZERO,
        sender: Sender::Replica(ReplicaId(0)),
        incarnation: Incarnation::ZERO,
        view: View(3),
        crash_vector: CrashVector::default(),
        message: Message::Prepare(Prepare {
            entries: entries.into(),
            commit: Committed::default(),
            heartbeat: HeartbeatNumber::ZERO,
        }),
    }
}

/// A service that does nothing, so that what is measured is the machinery around it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl RawStateMachine for Nothing {
    fn apply(&mut self, _: &Context, operation: &Bytes) -> Result<Bytes, Malformed> {
        Ok(operation.clone())
    }

    fn query(&self, _: &QueryContext, query: Bytes) -> Result<Bytes, Malformed> {
        Ok(query)
    }

    fn snapshot(&self, _: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        Ok(())
    }

    fn restore(&mut self, _: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entries_form_a_chain() {
        let chain = entries(3, 16);
        let parents: Vec<Checksum> = chain.iter().map(|entry| entry.header.parent).collect();
        let heads: Vec<Checksum> = chain.iter().map(|entry| entry.header.checksum).collect();
        assert_eq!(parents[1..], heads[..3]);
        assert_eq!(
            (chain[0].header.kind, chain[3].header.kind),
            (EntryKind::Register, EntryKind::Request)
        );
    }
}
