//! Compares who opens a storage with whom it belongs to.

use std::path::Path;

use vr_core::{
    StorageError,
    model::durable::{Identity, Superblock},
};

/// Checks that `superblock`, found at `path`, belongs to `identity`.
///
/// # Errors
/// [`StorageError::Foreign`] names the first difference, as it was found and as it was expected.
pub(crate) fn check(
    path: &Path,
    superblock: &Superblock,
    identity: &Identity,
) -> Result<(), StorageError> {
    let foreign = |found: String, expected: String| {
        Err(StorageError::Foreign { path: path.to_owned(), found, expected })
    };
    if superblock.group_name != identity.group_name {
        return foreign(
            format!("group {:?}", superblock.group_name),
            format!("group {:?}", identity.group_name),
        );
    }
    if superblock.members != identity.members {
        return foreign(
            format!("a group with the member list {}", superblock.members),
            format!("one with the member list {}", identity.members),
        );
    }
    if superblock.group != identity.group {
        return foreign(format!("group {}", superblock.group), format!("group {}", identity.group));
    }
    if superblock.replica != identity.replica {
        return foreign(
            format!("replica {}", superblock.replica),
            format!("replica {}", identity.replica),
        );
    }
    if superblock.durability != identity.durability {
        return foreign(
            format!("a replica that runs in mode {:?}", superblock.durability),
            format!("one in mode {:?}", identity.durability),
        );
    }
    Ok(())
}
