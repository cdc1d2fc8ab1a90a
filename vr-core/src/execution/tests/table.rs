//! The client table in a snapshot, and what it does after one.

use super::*;

/// A table with a full window, a malformed outcome and a session that asked nothing.
pub(super) fn table() -> ClientTable {
    let mut table = ClientTable::new(WINDOW);
    table.register(ALICE, Nonce(5), OpNumber(1), CLIENTS.into());
    table.register(BOB, Nonce(u128::MAX), OpNumber(2), CLIENTS.into());
    for number in 1..=5 {
        let outcome = if number == 4 { Outcome::Malformed } else { executed(300) };
        let turn = table.turn(ALICE, OpNumber(1), RequestNumber(number));
        let Turn::Next(slot) = turn else { panic!("request {number} is next") };
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
