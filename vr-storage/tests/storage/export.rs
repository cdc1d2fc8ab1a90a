//! Exports: pinned bytes, and no damage, cut or stranger that passes for one.

use std::{fs, path::Path};

use bytes::Bytes;
use proptest::prelude::*;
use vr_core::{
    Durability, Members, OpNumber, ReplicaId, View,
    model::{
        certificate::{Certificate, Inheritance, Means},
        durable::{CheckpointId, Trust, genesis_checksum},
        entry::{Entry, EntryHeader, EntryKind},
        export::LogFacts,
        types::{Checksum, ClientId, DiskId, Epoch, RequestNumber},
    },
};
use vr_storage::{CopyError, ExportReader, ExportWriter};

/// The log of replica 1 of the group "g" of three: `payloads` in view 3, of which it promised 4.
pub(crate) fn log(payloads: &[&[u8]]) -> (LogFacts, Vec<Entry>) {
    let group = Members::local(3).unwrap().to_membership().group_id("g");
    let (checksum, op_number) = (genesis_checksum(group), OpNumber::ZERO);
    log_behind(CheckpointId { op_number, checksum, digest: Checksum::ZERO }, payloads)
}

/// The same behind a checkpoint.
pub(crate) fn log_behind(checkpoint: CheckpointId, payloads: &[&[u8]]) -> (LogFacts, Vec<Entry>) {
    let members = Members::local(3).unwrap().to_membership();
    let group = members.group_id("g");
    let mut head = checkpoint.checksum;
    let mut entries = Vec::new();
    for (op, payload) in (checkpoint.op_number.0 + 1..).zip(payloads) {
        let header = EntryHeader {
            parent: head,
            client: ClientId(0x77),
            view: View(3),
            op_number: OpNumber(op),
            time: 1_700_000_000_000_000_000 + op,
            session: OpNumber(1),
            request_number: RequestNumber(op),
            group: EntryHeader::group_mark(group),
            kind: EntryKind::Request,
            ..EntryHeader::default()
        };
        let entry = Entry::new(header, Bytes::copy_from_slice(payload));
        head = entry.header.checksum;
        entries.push(entry);
    }
    let inheritance = Inheritance {
        means: Means::Restored,
        epoch: Epoch::ZERO,
        op_number: OpNumber(0),
        checksum: Checksum(5),
    };
    let facts = LogFacts {
        group,
        group_name: "g".into(),
        members,
        durability: Durability::Full,
        replica: ReplicaId(1),
        certificate: Certificate {
            group_name: "g".into(),
            disks: (0..3).map(|id| (ReplicaId(id), DiskId(100 + u128::from(id)))).collect(),
            inherited: vec![inheritance],
        },
        epoch: Epoch(0),
        latest_epoch: Epoch(0),
        view: View(4),
        log_view: View(3),
        trust: Trust::Intact,
        checkpoint,
        commit_number: OpNumber(checkpoint.op_number.0 + 1),
        op_number: OpNumber(checkpoint.op_number.0 + u64::try_from(payloads.len()).unwrap()),
        checksum: head,
    };
    (facts, entries)
}

/// Writes them to a file at `path`.
pub(crate) fn write(path: &Path, facts: &LogFacts, entries: &[Entry]) {
    let mut writer = ExportWriter::create(path, facts).unwrap();
    writer.append(entries).unwrap();
    writer.finish().unwrap();
}

fn sample() -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let (facts, entries) = log(&[b"put a 1", b"", b"put b 2"]);
    write(&path, &facts, &entries);
    let bytes = fs::read(&path).unwrap();
    (dir, path, bytes)
}

pub(crate) fn refusal(path: &Path, bytes: &[u8]) -> CopyError {
    fs::write(path, bytes).unwrap();
    ExportReader::verify(path).unwrap_err()
}

#[test]
fn the_bytes_of_an_export_are_pinned_and_documented() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let (facts, entries) = log(&[b"put a 1"]);
    write(&path, &facts, &entries);
    assert_pinned(&path, include_str!("../golden/export.hex"));
}

/// The file at `path` has these bytes, and docs/STORAGE.md shows them.
pub(crate) fn assert_pinned(path: &Path, golden: &str) {
    let line = |(number, line): (usize, &[u8])| {
        let bytes: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:04x}  {}\n", number * 16, bytes.join(" "))
    };
    let hex: String = fs::read(path).unwrap().chunks(16).enumerate().map(line).collect();
    assert_eq!(hex, golden, "changed bytes need a new version; these are\n{hex}");
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/STORAGE.md");
    assert!(fs::read_to_string(document).unwrap().contains(&hex), "docs/STORAGE.md shows it");
}

#[test]
fn what_is_written_is_read() {
    let (_dir, path, _) = sample();
    let (facts, entries) = log(&[b"put a 1", b"", b"put b 2"]);
    assert_eq!(ExportReader::verify(&path).unwrap(), facts);
    let mut reader = ExportReader::open(&path).unwrap();
    let mut read = Vec::new();
    loop {
        let next = reader.next(1).unwrap();
        if next.is_empty() {
            break;
        }
        assert_eq!(next.len(), 1, "no more than fit, but one at least");
        read.extend(next);
    }
    assert_eq!(read, entries);
}

#[test]
fn an_empty_log_is_an_export_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let (facts, _) = log(&[]);
    write(&path, &facts, &[]);
    assert_eq!(ExportReader::verify(&path).unwrap(), facts);
}

#[test]
fn every_cut_is_noticed() {
    let (_dir, path, bytes) = sample();
    for length in 0..bytes.len() {
        let error = refusal(&path, &bytes[..length]);
        assert!(
            matches!(error, CopyError::Damaged { .. } | CopyError::NotAnExport { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (_dir, path, bytes) = sample();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        refusal(&path, &damaged);
    }
}

#[test]
fn what_follows_the_end_is_noticed() {
    let (_dir, path, mut bytes) = sample();
    bytes.push(0);
    let text = refusal(&path, &bytes).to_string();
    assert!(text.contains("there are bytes behind the last entry"), "{text}");
}

#[test]
fn another_version_is_refused_with_both_numbers() {
    let (_dir, path, mut bytes) = sample();
    bytes[24] = 9;
    let text = refusal(&path, &bytes).to_string();
    assert!(text.contains("version 9") && text.contains("reads 2"), "{text}");
}

#[test]
fn entries_of_another_group_or_of_the_future_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let change = |name: &str, change: fn(&mut EntryHeader)| {
        let path = dir.path().join(name);
        let (mut facts, mut entries) = log(&[b"put a 1"]);
        change(&mut entries[0].header);
        entries[0].header = entries[0].header.sealed();
        facts.checksum = entries[0].header.checksum;
        write(&path, &facts, &entries);
        ExportReader::verify(&path).unwrap_err().to_string()
    };
    let text = change("group", |header| header.group ^= 1);
    assert!(text.contains("op 1: it belongs to another group"), "{text}");
    let text = change("view", |header| header.view = View(5));
    assert!(text.contains("its view is later"), "{text}");
    let text = change("gap", |header| header.op_number = OpNumber(2));
    assert!(text.contains("does not follow"), "{text}");
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_half_written() {
    let (dir, path, bytes) = sample();
    let (facts, entries) = log(&[b"other"]);
    let error = ExportWriter::create(&path, &facts).unwrap_err();
    assert!(matches!(error, CopyError::Exists { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let mut writer = ExportWriter::create(&dir.path().join("second"), &facts).unwrap();
    writer.append(&entries).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

proptest! {
    #[test]
    fn reading_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export");
        let mut whole = b"0123456789abcdefvrexport\x02\0\0\0".to_vec();
        whole.extend(&bytes);
        fs::write(&path, &whole).unwrap();
        prop_assert!(ExportReader::verify(&path).is_err());
    }
}
