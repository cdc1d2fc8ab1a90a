//! Faults that can be planted in a replica by name, to show that the tests notice them.
//!
//! They exist only with the feature `mutants`; without it [`Mutants`] holds nothing, and every
//! question about it is answered with no when it is compiled.

use core::fmt;

/// Declares the faults once: variant, name and documentation.
macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// One rule of docs/PROTOCOL.md, broken on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[cfg_attr(not(feature = "mutants"), expect(dead_code, reason = "some are of storage"))]
        pub enum Mutant {
            $($(#[doc = $doc])+ $variant,)+
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name on command lines and in docs/TESTING.md.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

mutants! {
    // Section "Persistence points" of docs/PROTOCOL.md.
    /// A backup acknowledges entries that it has not synced.
    AckBeforeSync = "ack-before-sync",
    /// The primary counts its own entries before they are synced.
    PrimaryCountsUnsynced = "primary-counts-unsynced",
    /// The view is written after the view change, with the new log, instead of before the vote.
    PromiseAfterViewChange = "promise-after-view-change",
    /// The log of a view is written before the promise to that view.
    LogBeforePromise = "log-before-promise",
    /// The superblock that makes a log count is written before the log.
    SuperblockBeforeLog = "superblock-before-log",
    /// Storage says that log entries are durable without a sync.
    LogNotSynced = "log-not-synced",
    /// Storage says that the superblock is durable without a sync.
    SuperblockNotSynced = "superblock-not-synced",
    /// Storage goes on after a failed sync.
    SyncErrorIgnored = "sync-error-ignored",

    // Section "Normal operation".
    /// One acknowledgement fewer than a quorum commits.
    CommitShortOfQuorum = "commit-short-of-quorum",
    /// The primary executes and answers before the operation is committed.
    ReplyBeforeCommit = "reply-before-commit",
    /// A lower commit number replaces a higher one.
    CommitRegresses = "commit-regresses",
    /// A commit number beyond the end of the log is taken as it is.
    CommitBeyondLog = "commit-beyond-log",
    /// A commit number of a view whose log is not here yet is taken for the log that is.
    CommitOverUncertainLog = "commit-over-uncertain-log",
    /// Entries carry the wall clock of their primary as it is.
    EntryTimeOfWallClock = "entry-time-of-wall-clock",

    // Sections "View change", "Catching up" and "Recovery".
    /// A restarted primary goes on in its view.
    RestartedPrimaryResumes = "restarted-primary-resumes",
    /// A replica that hears of a later view cuts its log down to what it knows to be committed.
    TruncateOnHearsay = "truncate-on-hearsay",
    /// The log view moves when the transfer of the log begins.
    LogViewBeforeLog = "log-view-before-log",
    /// A vote names the view of its last entry as its log view.
    LogViewOfLastEntry = "log-view-of-last-entry",
    /// The longest log wins a view change, whatever its log view.
    LongestLogWins = "longest-log-wins",
    /// The start of a lower view is taken for that of the view that is being formed.
    LowerStartAccepted = "lower-start-accepted",

    // Section "Recovery of a lost log".
    /// A replica without its log votes as if it were intact.
    LostVotesIntact = "lost-votes-intact",
    /// The start of the view whose log was lost is taken for that of a later view.
    OwnViewStartAccepted = "own-view-start-accepted",
    /// An answer to an earlier recovery counts for the current one.
    RecoveryWithoutNonce = "recovery-without-nonce",
    /// A replica without its log takes that of a view below its promise.
    RecoveryIntoLowerView = "recovery-into-lower-view",
    /// A primary that restarted, and wrote its disk in parallel, counts as one that did not.
    RestartedPrimaryUnbroken = "restarted-primary-unbroken",
    /// Lost votes complete any quorum, whatever view they lost the log of.
    LostVotesCount = "lost-votes-count",
    /// The vote of a replica whose log is lost names the view of the last entry that is left.
    LogViewOfLostLog = "log-view-of-lost-log",
    /// A log that is lost in `Full` counts again after the next start.
    LossForgotten = "loss-forgotten",

    // Section "Replicas that forgot everything".
    /// Messages of earlier lives are processed.
    NoCrashVector = "no-crash-vector",
    /// Votes of earlier lives are dropped when they arrive, and not when it becomes known later.
    VotesNotPruned = "votes-not-pruned",
    /// An answer leaves before the asker's new incarnation is durable.
    CrashVectorVolatile = "crash-vector-volatile",
    /// The primary's answer alone is believed by a replica that forgot everything.
    SinglePrimaryBelieved = "single-primary-believed",
    /// A replica takes damaged entries for entries that it never had, and votes with the rest.
    DamageIsAbsence = "damage-is-absence",

    // Section "Timers".
    /// One replica's suspicion is enough to leave a view.
    BindingSuspicion = "binding-suspicion",
    /// A primary that hears nobody goes on leading.
    NoCheckQuorum = "no-check-quorum",
    /// Views do not find each other through pings.
    NoViewSync = "no-view-sync",
    /// The start of a view is announced once and never repeated.
    NoStartRepair = "no-start-repair",

    // Section "Checkpoints".
    /// The checkpoint of a single replica is enough to release the log.
    CheckpointOfOne = "checkpoint-of-one",
    /// A replica acknowledges and votes with a checkpoint that is not durable yet.
    AckBeforeSnapshot = "ack-before-snapshot",

    // Section "State on disk".
    /// What clients were told is not stored with a state that is on disk.
    CompanionWithoutTable = "companion-without-table",

    // Sections "Sessions" and "Reads".
    /// Neither the primary nor the client table notices a request that was executed before.
    ExecuteTwice = "execute-twice",
    /// A request whose reply is not kept any more is taken for one that was never executed.
    ForgottenIsNew = "forgotten-is-new",
    /// A backup executes only the first of several operations that have one place.
    ManyInPart = "many-in-part",
    /// A repeated request that is not executed yet is answered as if it were.
    AnswerUnexecuted = "answer-unexecuted",
    /// A request counts as admitted also after a view change took it out of the log.
    DedupAtReceipt = "dedup-at-receipt",
    /// The primary answers queries without asking whether it is still primary.
    ReadWithoutQuorum = "read-without-quorum",
    /// A new primary answers queries before what it started with is committed.
    ReadBeforeStart = "read-before-start",
    /// A replica answers a query before it has executed what its token names.
    TokenUnheeded = "token-unheeded",
    /// A backup votes for the next view although its primary holds its lease.
    LeaseUnheeded = "lease-unheeded",
    /// A backup that restarts does not wait for the lease that it may have granted.
    LeaseForgotten = "lease-forgotten",
    /// A primary counts on its lease to the end, whatever the clocks do.
    LeaseWithoutDrift = "lease-without-drift",

    /// A backup keeps the sessions that the primary closes.
    EvictOnlyAtPrimary = "evict-only-at-primary",

    // Section "Limits".
    /// A backup holds clients' requests for the primary without an end.
    EndlessForwards = "endless-forwards",
    /// A backup takes entries although its log is full, as long as its checkpoint lags.
    EndlessLog = "endless-log",

    // Section "Genesis".
    /// A quorum of blank members is enough to found a group.
    GenesisByQuorum = "genesis-by-quorum",
    /// Any member founds a group, in one round.
    AnyFounder = "any-founder",
    /// Answers to earlier questions count for the current one.
    GenesisWithoutNonce = "genesis-without-nonce",
    /// Messages of another founding of the group are processed.
    NoCertificateHash = "no-certificate-hash",
    /// A member that is told of an epoch that was begun by force goes on in its own.
    SupersededGoesOn = "superseded-goes-on",
    /// A replica with a wiped disk just catches up.
    BlankCatchesUp = "blank-catches-up",
}

/// The faults planted in one replica; none unless somebody asks for them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Mutants {
    #[cfg(feature = "mutants")]
    bits: u128,
}

#[cfg(feature = "mutants")]
impl Mutants {
    /// Only this one.
    #[must_use]
    pub const fn only(mutant: Mutant) -> Self {
        Self { bits: bit(mutant) }
    }

    /// Whether `mutant` is planted.
    #[must_use]
    pub const fn contain(self, mutant: Mutant) -> bool {
        self.bits & bit(mutant) != 0
    }

    /// Whether none is planted.
    #[must_use]
    pub const fn are_none(self) -> bool {
        self.bits == 0
    }
}

#[cfg(not(feature = "mutants"))]
impl Mutants {
    /// The only value there is.
    pub const NONE: Self = Self {};

    /// No: without the feature none is planted.
    #[must_use]
    pub const fn contain(self, _: Mutant) -> bool {
        false
    }

    /// Yes: without the feature none is planted.
    #[must_use]
    pub const fn are_none(self) -> bool {
        true
    }
}

/// The place of `mutant` in a set.
#[cfg(feature = "mutants")]
#[expect(clippy::as_conversions, reason = "a variant without fields has a small number")]
const fn bit(mutant: Mutant) -> u128 {
    1 << (mutant as u32)
}

impl fmt::Debug for Mutants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "mutants")]
        let names = Mutant::ALL.iter().filter(|mutant| self.contain(**mutant)).map(|m| m.name());
        #[cfg(not(feature = "mutants"))]
        let names = core::iter::empty::<&str>();
        f.debug_set().entries(names).finish()
    }
}

#[cfg(feature = "mutants")]
impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(feature = "mutants")]
impl core::str::FromStr for Mutant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|mutant| mutant.name() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|mutant| mutant.name()).collect();
            format!("there is no mutant '{name}'; there are {}", names.join(", "))
        })
    }
}

#[cfg(all(test, feature = "mutants"))]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_has_a_name_and_a_place_of_its_own() {
        for mutant in Mutant::ALL {
            assert_eq!(mutant.name().parse(), Ok(*mutant));
            let planted =
                Mutant::ALL.iter().filter(|other| Mutants::only(*mutant).contain(**other));
            assert_eq!(planted.count(), 1);
        }
        assert!("nobody".parse::<Mutant>().is_err());
    }

    #[test]
    fn nothing_is_planted_unless_somebody_asks() {
        assert!(Mutants::default().are_none() && !Mutants::only(Mutant::NoViewSync).are_none());
    }
}
