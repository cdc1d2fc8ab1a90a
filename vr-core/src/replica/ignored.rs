//! Why a message changed nothing: said once, counted once, never an error.

use core::fmt;

/// Why a message changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// It belongs to another group.
    OtherGroup,
    /// It belongs to a group of the same name that other disks founded.
    OtherCertificate,
    /// It belongs to another membership period.
    OtherEpoch,
    /// The sender is not a voter, or is not who the transport says, or is this replica.
    NotMember,
    /// The sender has forgotten everything since it said this.
    EarlierLife,
    /// This replica does not belong to a group yet.
    Blank,
    /// It is about a view that this replica has left.
    OldView,
    /// It is about a view that this replica does not know the log of.
    NewerView,
    /// This replica is between two views, or the message is only for that.
    WrongStatus,
    /// What it asks to be remembered is not durable yet; it will be asked again.
    NotDurable,
    /// The sender runs in another durability mode.
    OtherMode,
    /// Only the primary may receive it.
    NotPrimary,
    /// Only a backup may receive it.
    NotBackup,
    /// Only the primary may send it.
    NotFromPrimary,
    /// What it says is known.
    Duplicate,
    /// It answers a question that nobody asks (any more).
    Unasked,
    /// Its parts contradict each other.
    Malformed,
    /// The sender does not hold what was asked for.
    NotHeld,
    /// It is kept for later.
    Kept,
    /// Storage is behind by as much as may be held in memory; it will be asked for.
    StorageBehind,
    /// The log is full until a later checkpoint is held; it will be asked for.
    LogFull,
    /// A limit is reached, and the sender was told.
    Busy,
    /// Clients do not say this to replicas.
    NotForReplicas,
    /// The engine has stopped.
    Stopped,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
