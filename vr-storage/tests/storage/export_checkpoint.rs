//! Exports of a log that starts after a checkpoint: all of it is there, and all of it is verified.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use vr_core::{
    CheckpointCopy, Checkpoints, ExportError, MemoryCheckpoints, OpNumber,
    model::{
        checkpoint::{CHUNK_BYTES, Draft, Manifest},
        durable::CheckpointId,
        entry::Entry,
        export::LogFacts,
        types::Checksum,
    },
};
use vr_storage::{CopyError, ExportReader, ExportWriter};

use crate::export::{assert_pinned, log_behind, refusal};

/// The checkpoint after op 4 with the bytes of `state`, in memory.
pub(crate) fn checkpoint(state: &[u8]) -> CheckpointCopy {
    let chunks: Vec<&[u8]> = state.chunks(usize::try_from(CHUNK_BYTES).unwrap()).collect();
    let manifest = Manifest {
        bytes: u64::try_from(state.len()).unwrap(),
        chunks: chunks.iter().map(|chunk| Checksum::of(chunk)).collect(),
    };
    let op_number = OpNumber(4);
    let id = CheckpointId { op_number, checksum: Checksum(0xc4), digest: manifest.digest() };
    let store = MemoryCheckpoints::new();
    let draft = Draft::Own(op_number);
    for (index, chunk) in (0..).zip(chunks) {
        store.put(&draft, index, chunk).unwrap();
    }
    store.complete(&draft, &id, &manifest).unwrap();
    CheckpointCopy::new(id, Arc::new(store))
}

/// A state of three chunks, of which the last is short.
pub(crate) fn large_state() -> Vec<u8> {
    let size = usize::try_from(CHUNK_BYTES).unwrap();
    (0..2 * size + 5).map(|at| u8::try_from(at / 999 % 251).unwrap()).collect()
}

/// Writes the checkpoint with `state` and `payloads` behind it to a file at `path`.
pub(crate) fn write_behind(
    path: &Path,
    state: &[u8],
    payloads: &[&[u8]],
) -> (LogFacts, Vec<Entry>) {
    let copy = checkpoint(state);
    let (facts, entries) = log_behind(copy.id(), payloads);
    let mut writer = ExportWriter::create(path, &facts).unwrap();
    writer.append_checkpoint(&copy).unwrap();
    writer.append(&entries).unwrap();
    writer.finish().unwrap();
    (facts, entries)
}

fn sample() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    write_behind(&path, b"a is 1, b is 2", &[b"put a 1"]);
    let bytes = fs::read(&path).unwrap();
    (dir, path, bytes)
}

fn chunks(reader: &mut ExportReader) -> Vec<u8> {
    let mut state = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        state.extend_from_slice(&chunk);
    }
    state
}

#[test]
fn the_bytes_of_an_export_with_a_checkpoint_are_pinned_and_documented() {
    let (_dir, path, _) = sample();
    assert_pinned(&path, include_str!("../golden/export_checkpoint.hex"));
}

#[test]
fn checkpoint_and_entries_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let (facts, entries) = write_behind(&path, &large_state(), &[b"put a 1", b"", b"put b 2"]);
    assert_eq!((facts.checkpoint.op_number, facts.op_number), (OpNumber(4), OpNumber(7)));
    assert_eq!(ExportReader::verify(&path).unwrap(), facts);
    let mut reader = ExportReader::open(&path).unwrap();
    assert_eq!(reader.manifest().count(), 3);
    assert_eq!(chunks(&mut reader), large_state());
    assert_eq!(reader.next(u64::MAX).unwrap(), entries);
    assert_eq!(reader.next(u64::MAX).unwrap(), []);
    let mut hurried = ExportReader::open(&path).unwrap();
    assert_eq!(hurried.next(u64::MAX).unwrap(), entries, "who wants no chunks need not ask");
}

#[test]
fn a_log_may_end_with_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let (facts, _) = write_behind(&path, b"all there is", &[]);
    assert_eq!(ExportReader::verify(&path).unwrap(), facts);
    assert_eq!(facts.op_number, OpNumber(4));
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
fn damage_of_each_part_is_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    write_behind(&path, &large_state(), &[b"put a 1"]);
    let bytes = fs::read(&path).unwrap();
    let (size, entry) = (usize::try_from(CHUNK_BYTES).unwrap(), 128 + 7);
    let state = bytes.len() - entry - large_state().len();
    let damaged = |at: usize| {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        refusal(&path, &damaged).to_string()
    };
    let parts = [
        (40, "the header"),
        (state - 1, "the checkpoint's manifest does not verify"),
        (state, "chunk 0 of the checkpoint does not verify"),
        (state + 2 * size - 1, "chunk 1 of the checkpoint does not verify"),
        (state + 2 * size + 4, "chunk 2 of the checkpoint does not verify"),
        (bytes.len() - 1, "op 5"),
    ];
    for (at, expected) in parts {
        let text = damaged(at);
        assert!(text.contains(expected), "{at}: {text}");
    }
    let text = refusal(&path, &bytes[..state + size]).to_string();
    assert!(text.contains("the file ends in chunk 1 of the checkpoint's 3"), "{text}");
}

#[test]
fn a_log_that_ends_before_its_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let copy = checkpoint(b"state");
    let (mut facts, _) = log_behind(copy.id(), &[]);
    facts.op_number = OpNumber(3);
    let mut writer = ExportWriter::create(&path, &facts).unwrap();
    writer.append_checkpoint(&copy).unwrap();
    writer.finish().unwrap();
    let text = ExportReader::verify(&path).unwrap_err().to_string();
    assert!(text.contains("ends before its checkpoint"), "{text}");
}

#[test]
fn no_entries_are_written_without_the_checkpoint_that_they_follow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("export");
    let copy = checkpoint(b"state");
    let (facts, entries) = log_behind(copy.id(), &[b"put a 1"]);
    let mut writer = ExportWriter::create(&path, &facts).unwrap();
    let text = writer.append(&entries).unwrap_err().to_string();
    assert!(text.contains("the checkpoint after op 4 comes first"), "{text}");
    let other = checkpoint(b"another state");
    let text = writer.append_checkpoint(&other).unwrap_err().to_string();
    assert!(text.contains("does not belong here"), "{text}");
    assert!(matches!(writer.finish(), Err(CopyError::Refused { .. })));
    let mut writer = ExportWriter::create(&path, &facts).unwrap();
    writer.append_checkpoint(&copy).unwrap();
    let twice = writer.append_checkpoint(&copy);
    assert!(matches!(twice, Err(CopyError::Refused { .. })));
}

#[test]
fn a_checkpoint_that_is_gone_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let copy = CheckpointCopy::new(checkpoint(b"state").id(), Arc::new(MemoryCheckpoints::new()));
    let (facts, _) = log_behind(copy.id(), &[]);
    let mut writer = ExportWriter::create(&dir.path().join("export"), &facts).unwrap();
    let gone = writer.append_checkpoint(&copy);
    assert!(matches!(gone, Err(CopyError::Export(ExportError::Changed))));
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
