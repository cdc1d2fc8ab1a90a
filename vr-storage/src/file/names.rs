//! The names of the files in a data directory, and what each one is.

use vr_core::{
    OpNumber,
    model::{checkpoint::Draft, durable::CheckpointId, types::Checksum},
};

use crate::{disk::LOCK_NAME, file::record::Copy};

/// Appended to the name of a file that is not complete yet.
const UNFINISHED: &str = ".new";

/// In front of the names of checkpoint files.
const MANIFEST: &str = "checkpoint-";
const CHUNKS: &str = "chunks-";
const ARRIVING: &str = "arriving-";
const OWN_DRAFT: &str = "draft-";

/// What a file in the directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// Carries the lock; empty.
    Lock,
    /// One of the two superblock files.
    Superblock(Copy),
    /// A segment of the log, with its number.
    Segment(u64),
    /// A released segment kept for reuse, with its number; its bytes mean nothing.
    Spare(u64),
    /// A segment of an older log, with its number; kept for people to look at, and never read.
    SetAside(u64),
    /// The manifest of a complete checkpoint.
    Manifest(CheckpointId),
    /// The chunks of a checkpoint, which is complete if there is a manifest.
    Chunks(CheckpointId),
    /// The chunks of a checkpoint that is being put together.
    Draft(Draft),
    /// Something that a crash left half created; its bytes mean nothing.
    Unfinished,
    /// Begins with a dot: not ours, and harmless.
    Hidden,
    /// Not ours.
    Unknown,
}

impl FileName {
    pub(crate) fn of(name: &str) -> Self {
        if name == LOCK_NAME {
            return Self::Lock;
        }
        if name.starts_with('.') {
            return Self::Hidden;
        }
        if let Some(finished) = name.strip_suffix(UNFINISHED) {
            return match Self::of(finished) {
                Self::Superblock(_) | Self::Segment(_) | Self::Manifest(_) => Self::Unfinished,
                Self::Lock
                | Self::Spare(_)
                | Self::SetAside(_)
                | Self::Chunks(_)
                | Self::Draft(_)
                | Self::Unfinished
                | Self::Hidden
                | Self::Unknown => Self::Unknown,
            };
        }
        if let Some(number) = name.strip_prefix("wal-").and_then(number) {
            return Self::Segment(number);
        }
        if let Some(number) = name.strip_prefix("lost-").and_then(number) {
            return Self::SetAside(number);
        }
        if let Some(id) = name.strip_prefix(MANIFEST).and_then(checkpoint) {
            return Self::Manifest(id);
        }
        if let Some(id) = name.strip_prefix(CHUNKS).and_then(checkpoint) {
            return Self::Chunks(id);
        }
        if let Some(id) = name.strip_prefix(ARRIVING).and_then(checkpoint) {
            return Self::Draft(Draft::Of(id));
        }
        if let Some(op_number) = name.strip_prefix(OWN_DRAFT).and_then(number) {
            return Self::Draft(Draft::Own(OpNumber(op_number)));
        }
        if let Some(number) = name.strip_prefix("spare-").and_then(number) {
            return Self::Spare(number);
        }
        [Copy::A, Copy::B]
            .into_iter()
            .find(|copy| name == superblock(*copy))
            .map_or(Self::Unknown, Self::Superblock)
    }
}

fn is_hex(digits: &str, count: usize) -> bool {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digits.len() == count && digits.bytes().all(lower)
}

fn number(digits: &str) -> Option<u64> {
    is_hex(digits, 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

fn checksum(digits: &str) -> Option<Checksum> {
    is_hex(digits, 32).then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(Checksum)
}

/// What [`checkpoint_name`] put behind a prefix.
fn checkpoint(name: &str) -> Option<CheckpointId> {
    let mut parts = name.split('-');
    let op_number = OpNumber(number(parts.next()?)?);
    let (entry, digest) = (checksum(parts.next()?)?, checksum(parts.next()?)?);
    parts.next().is_none().then_some(CheckpointId { op_number, checksum: entry, digest })
}

fn checkpoint_name(prefix: &str, id: &CheckpointId) -> String {
    let CheckpointId { op_number, checksum, digest } = id;
    format!("{prefix}{:016x}-{:032x}-{:032x}", op_number.0, checksum.0, digest.0)
}

/// The file of a checkpoint's manifest; there when the checkpoint is complete.
pub(crate) fn manifest(id: &CheckpointId) -> String {
    checkpoint_name(MANIFEST, id)
}

/// The file of a complete checkpoint's chunks.
pub(crate) fn chunks(id: &CheckpointId) -> String {
    checkpoint_name(CHUNKS, id)
}

/// The file of the chunks of a checkpoint that is being put together.
pub(crate) fn draft(draft: &Draft) -> String {
    match draft {
        Draft::Own(op_number) => format!("{OWN_DRAFT}{:016x}", op_number.0),
        Draft::Of(id) => checkpoint_name(ARRIVING, id),
    }
}

/// The file of a superblock copy.
pub(crate) const fn superblock(copy: Copy) -> &'static str {
    match copy {
        Copy::A => "superblock-a",
        Copy::B => "superblock-b",
    }
}

/// The file of a segment.
pub(crate) fn segment(number: u64) -> String {
    format!("wal-{number:016x}")
}

/// The file that the released segment `number` becomes.
pub(crate) fn spare(number: u64) -> String {
    format!("spare-{number:016x}")
}

/// The file that the segment `number` becomes when its log is set aside.
pub(crate) fn set_aside(number: u64) -> String {
    format!("lost-{number:016x}")
}

/// Where `name` is created before it is complete.
pub(crate) fn unfinished(name: &str) -> String {
    format!("{name}{UNFINISHED}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_we_give_is_recognised() {
        assert_eq!(FileName::of("LOCK"), FileName::Lock);
        assert_eq!(FileName::of(superblock(Copy::B)), FileName::Superblock(Copy::B));
        assert_eq!(FileName::of(&segment(26)), FileName::Segment(26));
        assert_eq!(FileName::of(&spare(3)), FileName::Spare(3));
        assert_eq!(FileName::of(&set_aside(7)), FileName::SetAside(7));
        assert_eq!(FileName::of(&unfinished(&segment(4))), FileName::Unfinished);
        assert_eq!(FileName::of(&unfinished(superblock(Copy::A))), FileName::Unfinished);
        let id = CheckpointId {
            op_number: OpNumber(0xab),
            checksum: Checksum(7),
            digest: Checksum(u128::MAX),
        };
        assert_eq!(FileName::of(&manifest(&id)), FileName::Manifest(id));
        assert_eq!(FileName::of(&unfinished(&manifest(&id))), FileName::Unfinished);
        assert_eq!(FileName::of(&chunks(&id)), FileName::Chunks(id));
        for kind in [Draft::Own(OpNumber(9)), Draft::Of(id)] {
            assert_eq!(FileName::of(&draft(&kind)), FileName::Draft(kind));
        }
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in ["wal-1", "wal-000000000000001A", "notes.txt", "notes.new", "superblock-c"] {
            assert_eq!(FileName::of(name), FileName::Unknown, "{name}");
        }
        let name = manifest(&CheckpointId::default());
        for name in [format!("{name}-"), format!("{name}0"), name.to_uppercase()] {
            assert_eq!(FileName::of(&name), FileName::Unknown, "{name}");
        }
        let name = unfinished(&chunks(&CheckpointId::default()));
        assert_eq!(FileName::of(&name), FileName::Unknown, "{name}");
        assert_eq!(FileName::of(".nfs0001"), FileName::Hidden);
    }
}
