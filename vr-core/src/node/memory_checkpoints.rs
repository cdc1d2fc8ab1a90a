//! Checkpoints in memory, for a group that keeps its log there, and for tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Mutex,
};

use bytes::Bytes;

use crate::{
    model::{
        checkpoint::{Draft, Manifest},
        durable::CheckpointId,
        types::{Checksum, OpNumber},
    },
    node::lock::lock,
    ports::storage::{Checkpoints, StorageError},
};

/// Checkpoints in memory: for a group that keeps its log there, and for tests.
#[derive(Debug, Default)]
pub struct MemoryCheckpoints {
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    complete: BTreeMap<CheckpointId, (Manifest, Vec<Bytes>)>,
    drafts: BTreeMap<Draft, BTreeMap<u32, Bytes>>,
}

impl Content {
    /// Chunks that are here, by what is in them.
    fn chunks(&self) -> BTreeMap<Checksum, Bytes> {
        let complete = self.complete.values().flat_map(|(_, chunks)| chunks);
        let drafts = self.drafts.values().flat_map(BTreeMap::values);
        complete.chain(drafts).map(|chunk| (Checksum::of(chunk), chunk.clone())).collect()
    }
}

impl MemoryCheckpoints {
    /// No checkpoint.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// The error for a checkpoint that is not there.
const fn missing(id: &CheckpointId) -> StorageError {
    StorageError::Missing { op_number: id.op_number }
}

impl Checkpoints for MemoryCheckpoints {
    fn put(&self, draft: &Draft, index: u32, chunk: &[u8]) -> Result<(), StorageError> {
        let mut content = lock(&self.content);
        let chunk = Bytes::copy_from_slice(chunk);
        content.drafts.entry(*draft).or_default().insert(index, chunk);
        Ok(())
    }

    fn missing(&self, draft: &Draft, manifest: &Manifest) -> Result<Vec<u32>, StorageError> {
        let mut content = lock(&self.content);
        let known = content.chunks();
        let here = content.drafts.entry(*draft).or_default();
        let mut lacking = Vec::new();
        for (index, checksum) in (0..).zip(&manifest.chunks) {
            if here.get(&index).is_some_and(|chunk| manifest.holds(index, chunk)) {
                continue;
            }
            match known.get(checksum).filter(|chunk| manifest.holds(index, chunk)) {
                Some(chunk) => drop(here.insert(index, chunk.clone())),
                None => lacking.push(index),
            }
        }
        Ok(lacking)
    }

    fn complete(
        &self,
        draft: &Draft,
        id: &CheckpointId,
        manifest: &Manifest,
    ) -> Result<(), StorageError> {
        let mut content = lock(&self.content);
        let chunks: Vec<Bytes> =
            content.drafts.remove(draft).unwrap_or_default().into_values().collect();
        let whole = chunks.len() == manifest.chunks.len()
            && (0..).zip(&chunks).all(|(index, chunk)| manifest.holds(index, chunk));
        if !whole {
            let (what, path) = ("a checkpoint".to_owned(), PathBuf::from("memory"));
            return Err(StorageError::Corrupt { what, path, at: 0 });
        }
        content.complete.insert(*id, (manifest.clone(), chunks));
        Ok(())
    }

    fn manifest(&self, id: &CheckpointId) -> Result<Manifest, StorageError> {
        let content = lock(&self.content);
        content.complete.get(id).map(|(manifest, _)| manifest.clone()).ok_or_else(|| missing(id))
    }

    fn chunk(&self, id: &CheckpointId, index: u32) -> Result<Bytes, StorageError> {
        let content = lock(&self.content);
        let (_, chunks) = content.complete.get(id).ok_or_else(|| missing(id))?;
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        chunks.get(at).cloned().ok_or_else(|| missing(id))
    }

    fn keep(&self, wanted: &[CheckpointId], through: OpNumber) -> Result<(), StorageError> {
        let wanted: BTreeSet<CheckpointId> = wanted.iter().copied().collect();
        let mut content = lock(&self.content);
        content.complete.retain(|id, _| id.op_number > through || wanted.contains(id));
        content.drafts.retain(|draft, _| match draft {
            Draft::Own(_) => true,
            Draft::Of(id) => wanted.contains(id),
        });
        Ok(())
    }

    fn is_quick(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(op: u64, manifest: &Manifest) -> CheckpointId {
        let checksum = Checksum(u128::from(op));
        CheckpointId { op_number: OpNumber(op), checksum, digest: manifest.digest() }
    }

    fn manifest(chunk: &[u8]) -> Manifest {
        let bytes = u64::try_from(chunk.len()).unwrap();
        Manifest { bytes, chunks: vec![Checksum::of(chunk)] }
    }

    #[test]
    fn a_draft_counts_when_it_is_complete() {
        let store = MemoryCheckpoints::new();
        let (manifest, draft) = (manifest(b"state"), Draft::Own(OpNumber(7)));
        let id = id(7, &manifest);
        store.put(&draft, 0, b"state").unwrap();
        assert!(matches!(store.manifest(&id), Err(StorageError::Missing { .. })));
        store.complete(&draft, &id, &manifest).unwrap();
        assert_eq!(store.manifest(&id).unwrap(), manifest);
        assert_eq!(store.chunk(&id, 0).unwrap(), b"state".as_slice());
        assert!(store.chunk(&id, 1).is_err());
    }

    #[test]
    fn a_chunk_that_is_known_is_not_lacking() {
        let store = MemoryCheckpoints::new();
        let (manifest, own) = (manifest(b"state"), Draft::Own(OpNumber(7)));
        store.put(&own, 0, b"state").unwrap();
        store.complete(&own, &id(7, &manifest), &manifest).unwrap();
        let other = id(9, &manifest);
        assert!(store.missing(&Draft::Of(other), &manifest).unwrap().is_empty());
        store.complete(&Draft::Of(other), &other, &manifest).unwrap();
        let strange = self::manifest(b"other");
        assert_eq!(store.missing(&Draft::Of(id(9, &strange)), &strange).unwrap(), [0]);
    }

    #[test]
    fn a_draft_with_a_false_chunk_never_counts() {
        let store = MemoryCheckpoints::new();
        let (manifest, draft) = (manifest(b"state"), Draft::Own(OpNumber(7)));
        store.put(&draft, 0, b"stale").unwrap();
        assert!(store.complete(&draft, &id(7, &manifest), &manifest).is_err());
    }

    #[test]
    fn only_what_is_wanted_stays() {
        let store = MemoryCheckpoints::new();
        let manifest = manifest(b"state");
        for op in [7, 8] {
            store.put(&Draft::Own(OpNumber(op)), 0, b"state").unwrap();
            store.complete(&Draft::Own(OpNumber(op)), &id(op, &manifest), &manifest).unwrap();
        }
        let here = |op| store.manifest(&id(op, &manifest)).is_ok();
        store.keep(&[], OpNumber(6)).unwrap();
        assert!(here(7) && here(8), "younger ones stay: nobody has been told of them yet");
        store.keep(&[id(8, &manifest)], OpNumber(8)).unwrap();
        assert!(!here(7) && here(8));
    }
}
