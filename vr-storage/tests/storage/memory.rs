//! Storage in memory behaves as storage in files, as far as it goes.

use futures::executor::block_on;
use vr_core::{OpNumber, ReplicaId, Storage, StorageError, WriteBatch};
use vr_storage::MemoryStorage;

use crate::history::{Content, identity};

fn open(storage: &MemoryStorage) -> vr_core::Opened {
    block_on(Box::new(storage.clone()).open(&identity())).unwrap()
}

#[test]
fn a_restarted_node_finds_what_it_wrote() {
    let storage = MemoryStorage::new();
    let mut content = Content::new();
    let mut opened = open(&storage);
    for batch in [content.append(&[1, 2, 3]), content.promise(0)] {
        content.apply(&batch);
        block_on(opened.writer.write(batch)).unwrap();
    }
    let cut = content.cut(1, &[9]);
    content.apply(&cut);
    block_on(opened.writer.write(cut)).unwrap();
    drop(opened);
    let opened = open(&storage);
    assert!(content.is(&opened.recovered));
    let read = block_on(opened.reader.entries(OpNumber(1), OpNumber(2), u64::MAX)).unwrap();
    assert_eq!(read, content.log);
}

#[test]
fn memory_in_use_is_refused() {
    let storage = MemoryStorage::new();
    let opened = open(&storage);
    let again = block_on(Box::new(storage.clone()).open(&identity()));
    assert!(matches!(again, Err(StorageError::InUse { .. })));
    drop(opened);
    open(&storage);
}

#[test]
fn memory_of_another_replica_is_refused() {
    let storage = MemoryStorage::new();
    drop(open(&storage));
    let mut other = identity();
    other.replica = ReplicaId(0);
    let opened = block_on(Box::new(storage).open(&other));
    assert!(matches!(opened, Err(StorageError::Foreign { .. })));
}

#[test]
fn memory_releases_up_to_the_checkpoint() {
    let storage = MemoryStorage::new();
    let mut content = Content::new();
    let mut opened = open(&storage);
    let append = content.append(&[1, 2, 3]);
    content.apply(&append);
    block_on(opened.writer.write(append)).unwrap();
    let release = WriteBatch { release: Some(OpNumber(3)), ..content.promise(2) };
    block_on(opened.writer.write(release)).unwrap();
    let read = |op| block_on(opened.reader.entries(OpNumber(op), OpNumber(op), 1));
    assert!(matches!(read(2), Err(StorageError::Missing { .. })));
    assert!(read(3).is_ok());
}
