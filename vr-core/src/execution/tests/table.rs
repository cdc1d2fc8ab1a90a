//! The client table in a snapshot, and what it does after one.

use super::*;
use crate::model::{
    checkpoint::CHUNK_BYTES, config::Config, durable::Durability, footprint::Usage,
};

/// A table with a full window, a malformed outcome and a session that asked nothing.
pub(super) fn table() -> ClientTable {
    let mut table = ClientTable::new(WINDOW);
    table.register(ALICE, Nonce(5), OpNumber(1), CLIENTS.into());
    table.register(BOB, Nonce(u128::MAX), OpNumber(2), CLIENTS.into());
    for number in 1..=5 {
        let outcome = if number == 4 { Outcome::Malformed } else { executed(300) };
        let turn = table.turn(ALICE, OpNumber(1), RequestNumber(number));
        let Turn::Next(mut slot) = turn else { panic!("request {number} is next") };
        slot.store(OpNumber(number + 2), outcome);
    }
    table
}

pub(super) fn bytes_of(table: &ClientTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.snapshot(&mut SnapshotWriter::new(&mut bytes)).unwrap();
    bytes
}

pub(super) fn restored(mut bytes: &[u8]) -> Result<(ClientTable, usize), SnapshotError> {
    let mut table = ClientTable::new(WINDOW);
    table.restore(&mut SnapshotReader::new(&mut bytes))?;
    Ok((table, bytes.len()))
}

#[test]
fn a_table_survives_its_snapshot_and_reads_nothing_behind_it() {
    let mut bytes = bytes_of(&table());
    bytes.extend_from_slice(b"the state machine's");
    let (copy, behind) = restored(&bytes).unwrap();
    assert_eq!((copy, behind), (table(), 19));
}

/// What a footprint counts for a table on its way is not less than it takes, whatever its numbers are.
#[test]
fn a_table_takes_no_more_bytes_than_a_footprint_counts() {
    let mut config = Config::default();
    (config.window, config.clients_max, config.pipeline_ops_max) = (2, 3, 0);
    let mut table = ClientTable::new(config.window);
    for client in 0..3 {
        let client = ClientId(u128::MAX - client);
        let session = OpNumber(u64::MAX - 9);
        table.register(client, Nonce(u128::MAX), session, 3);
        for number in 1..=2 {
            let turn = table.turn(client, session, RequestNumber(number));
            let Turn::Next(mut slot) = turn else { panic!("request {number} is next") };
            slot.store(OpNumber(u64::MAX), Outcome::Executed(Bytes::from(vec![1; 300])));
        }
    }
    let bytes = u64::try_from(bytes_of(&table).len()).unwrap();
    let usage = |reply_bytes_max| Usage {
        durability: Durability::Full,
        members: 3,
        reply_bytes_max,
        snapshot_bytes_max: 0,
    };
    let counted = |reply_bytes_max| {
        let memory = config.footprint(&usage(reply_bytes_max)).memory;
        let of = |what| memory.iter().find(|share| share.what == what).unwrap().bytes;
        of("sessions on their way") - of("sessions and their replies")
    };
    // Three copies, besides the room that the first chunk leaves.
    let room = 3 * u64::from(CHUNK_BYTES);
    assert!(counted(300) - room >= 3 * bytes, "{} is below {}", counted(300) - room, 3 * bytes);
    assert!(counted(300) - room < 4 * bytes, "and not far above");
}

#[test]
fn a_table_cut_short_or_of_another_version_is_refused_and_changes_nothing() {
    let bytes = bytes_of(&table());
    for length in 0..bytes.len() {
        assert!(restored(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    let newer = [&[2, 0], &bytes[2..]].concat();
    assert!(matches!(restored(&newer), Err(SnapshotError::Unreadable)));
    let mut kept = table();
    assert!(kept.restore(&mut SnapshotReader::new(&mut newer.as_slice())).is_err());
    assert_eq!(kept, table());
}

#[test]
fn a_table_with_a_client_twice_is_refused() {
    let mut one = ClientTable::new(WINDOW);
    one.register(ALICE, Nonce(5), OpNumber(1), CLIENTS.into());
    let bytes = bytes_of(&one);
    let twice = [&[1, 0, 2, 0, 0, 0], &bytes[6..], &bytes[6..]].concat();
    assert!(matches!(restored(&twice), Err(SnapshotError::Unreadable)));
}

/// S62: what is closed next does not depend on whether the table was restored from a snapshot.
#[test]
fn a_restored_table_closes_the_same_session() {
    let (mut one, bytes) = (table(), bytes_of(&table()));
    let (mut other, _) = restored(&bytes).unwrap();
    for op in 20..30 {
        let client = ClientId(u128::from(op));
        let (first, second) = (
            one.register(client, Nonce(1), OpNumber(op), CLIENTS.into()),
            other.register(client, Nonce(1), OpNumber(op), CLIENTS.into()),
        );
        assert_eq!(first, second);
    }
    assert_eq!(one, other);
}
