//! The names of the files in a data directory, and what each one is.

use crate::{disk::LOCK_NAME, file::record::Copy};

/// Appended to the name of a file that is not complete yet.
const UNFINISHED: &str = ".new";

/// What a file in the directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// Carries the lock; empty.
    Lock,
    /// One of the two superblock files.
    Superblock(Copy),
    /// A segment of the log, with its number.
    Segment(u64),
    /// A released segment kept for reuse; its bytes mean nothing.
    Spare,
    /// A segment of an older log, with its number; kept for people to look at, and never read.
    SetAside(u64),
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
                Self::Superblock(_) | Self::Segment(_) => Self::Unfinished,
                Self::Lock
                | Self::Spare
                | Self::SetAside(_)
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
        if name.strip_prefix("spare-").and_then(number).is_some() {
            return Self::Spare;
        }
        [Copy::A, Copy::B]
            .into_iter()
            .find(|copy| name == superblock(*copy))
            .map_or(Self::Unknown, Self::Superblock)
    }
}

fn number(digits: &str) -> Option<u64> {
    let lower = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (digits.len() == 16 && lower).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
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
        assert_eq!(FileName::of(&spare(3)), FileName::Spare);
        assert_eq!(FileName::of(&set_aside(7)), FileName::SetAside(7));
        assert_eq!(FileName::of(&unfinished(&segment(4))), FileName::Unfinished);
        assert_eq!(FileName::of(&unfinished(superblock(Copy::A))), FileName::Unfinished);
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in ["wal-1", "wal-000000000000001A", "notes.txt", "notes.new", "superblock-c"] {
            assert_eq!(FileName::of(name), FileName::Unknown, "{name}");
        }
        assert_eq!(FileName::of(".nfs0001"), FileName::Hidden);
    }
}
