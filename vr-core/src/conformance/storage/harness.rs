//! What the implementer of a storage supplies, so that the suite can harm it.

use crate::ports::storage::Storage;

/// Makes storage, and harms it as far as it can.
///
/// Only [`fresh`](Self::fresh) and [`storage`](Self::storage) are needed. Whatever else
/// [`covers`](Self::covers) promises must be overridden, and the cases that need something which
/// is not promised are reported as not covered.
pub trait Harness: Send {
    /// Forgets all trouble and the storage before, and makes an empty one in its place.
    fn fresh(&mut self);

    /// The storage that was made last, with what is in it, for a process that opens it.
    ///
    /// Writer and reader of the process before were dropped, unless the case is about
    /// [`Capability::ExclusiveOpen`].
    fn storage(&mut self) -> Box<dyn Storage>;

    /// Whether the suite may ask for this.
    fn covers(&self, capability: Capability) -> bool {
        let _ = capability;
        false
    }

    /// Lets `changes` more changes of what is below the storage succeed (each write, each sync,
    /// each creation or renaming of a file counts); the next one, and everything after it, fails,
    /// and may have been done by half. Holds until [`restart`](Self::restart).
    ///
    /// Asked for with [`Capability::Kill`] and [`Capability::PowerCut`]. The finer the changes
    /// are counted, the more is tried.
    fn die_after(&mut self, changes: u64) {
        let _ = changes;
    }

    /// Ends the process, and makes of the storage what the next one finds.
    fn restart(&mut self, crash: Crash) {
        let _ = crash;
    }

    /// Begins a trouble, in place of the one before; `None` ends it.
    fn trouble(&mut self, trouble: Option<Trouble>) {
        let _ = trouble;
    }

    /// The parts that the storage consists of, such as its files, with their bytes in use.
    ///
    /// Equal histories make equal parts. Asked for with [`Capability::Damage`].
    fn regions(&mut self) -> Vec<Region> {
        Vec::new()
    }

    /// Damages a region, durably.
    fn damage(&mut self, region: &str, damage: Damage) {
        let _ = (region, damage);
    }
}

/// Something that a harness may be able to do, and cases may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// [`Harness::storage`] can be opened twice at once, and the storage promises to refuse that.
    ExclusiveOpen,
    /// [`Harness::die_after`] and [`Crash::Kill`].
    Kill,
    /// [`Harness::die_after`] and [`Crash::PowerCut`].
    PowerCut,
    /// [`Trouble::Full`].
    Full,
    /// [`Trouble::FailedWrites`].
    FailedWrites,
    /// [`Trouble::FailedSyncs`].
    FailedSyncs,
    /// [`Trouble::ShortReads`].
    ShortReads,
    /// [`Harness::regions`] and [`Harness::damage`], while the storage is closed.
    Damage,
    /// [`Harness::damage`] also while the storage is open, and reads look below it again.
    DamageWhileOpen,
    /// [`LogWriter::mark_idle`](crate::ports::storage::LogWriter::mark_idle) makes damage of the
    /// last batch an error; together with [`Capability::Damage`].
    IdleMarker,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: what it wrote is still there, synced or not.
    Kill,
    /// The power fails: of what was not synced, anything may be there or not, torn anywhere.
    PowerCut {
        /// Decides what is there.
        seed: u64,
    },
}

/// Something that does not work for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No space is left for anything new.
    Full,
    /// Every write fails.
    FailedWrites,
    /// Every sync fails, and what was to be synced may or may not be there later.
    FailedSyncs,
    /// A read returns fewer bytes than were asked for, at least one.
    ShortReads,
}

/// A part of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name, for [`Harness::damage`] and for messages.
    pub name: String,
    /// How many bytes of it are in use.
    pub bytes: u64,
}

/// What is done to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A bit changes.
    Flip {
        /// In which byte.
        at: u64,
        /// Which bit, 0 to 7.
        bit: u32,
    },
    /// Bytes become zero.
    Zero {
        /// From which byte on.
        at: u64,
        /// How many.
        bytes: u64,
    },
    /// Everything from here on is gone.
    Truncate {
        /// How many bytes are left.
        bytes: u64,
    },
}
