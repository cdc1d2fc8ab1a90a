//! Every mutant is noticed: by a story stepped by hand, and by the random runs within few seeds.
//!
//! A line of the list names the mutant, the story, what the panic of the story must say, and how
//! many seeds a sweep may need to find the mutant. docs/TESTING.md has the table.

use std::panic::{AssertUnwindSafe, catch_unwind};

use vr_core::model::mutants::Mutant;
use vr_sim::mutants::plant;

// The stories that hold without any mutant.
#[path = "scenario/checkpoints.rs"]
mod checkpoints;
#[path = "scenario/client_retry.rs"]
mod client_retry;
#[path = "scenario/clock.rs"]
mod clock;
#[path = "scenario/crash.rs"]
mod crash;
#[path = "scenario/duel_of_primaries.rs"]
mod duel_of_primaries;
#[path = "scenario/force.rs"]
mod force;
#[path = "scenario/forgotten.rs"]
mod forgotten;
#[path = "scenario/leases.rs"]
mod leases;
#[path = "scenario/lost_log.rs"]
mod lost_log;
#[path = "scenario/many.rs"]
mod many;
#[path = "scenario/on_disk.rs"]
mod on_disk;
#[path = "scenario/partition.rs"]
mod partition;
#[path = "scenario/reads.rs"]
mod reads;
#[path = "scenario/storage.rs"]
mod storage;
#[path = "scenario/tickets.rs"]
mod tickets;
#[path = "scenario/wiped_disk.rs"]
mod wiped_disk;

// Stories that are told for a mutant.
#[path = "mutants/clients.rs"]
mod clients;
#[path = "mutants/durability.rs"]
mod durability;
#[path = "mutants/genesis.rs"]
mod genesis;
#[path = "mutants/limits.rs"]
mod limits;
#[path = "mutants/views.rs"]
mod views;

/// What `story` panics with when `mutant` is planted; `None` when it passes.
fn objection(mutant: Mutant, story: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| plant(mutant, story))).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
}

/// Without the mutant the story passes; with it, its panic says `expected`.
#[expect(clippy::print_stdout, reason = "shown with --nocapture, for the table")]
fn shown_by_story(mutant: Mutant, story: fn(), expected: &str) {
    story();
    let said = objection(mutant, story).unwrap_or_else(|| panic!("{mutant} passes the story"));
    let first = said.lines().next().unwrap_or_default();
    assert!(said.contains(expected), "{mutant}: '{first}' does not say '{expected}'");
    println!("{mutant}: {first}");
}

/// Makes the tests of each mutant: its story, and its sweep if the random runs can find it.
///
/// The sweeps run in optimized builds only: without optimization they take minutes.
macro_rules! mutants {
    ($($name:ident: $mutant:ident, $story:path, $expected:literal
        $(, found by $seeds:literal seeds of $replicas:literal for $storm:literal s
            $(in $mode:ident)?)?;)+) => {
        mod story {
            use super::*;

            $(#[test]
            fn $name() {
                shown_by_story(Mutant::$mutant, $story, $expected);
            })+
        }

        #[cfg(not(debug_assertions))]
        mod sweep {
            use super::{sweeps::found, *};

            $($(#[test]
            fn $name() {
                found(Mutant::$mutant, $seeds, $replicas, $storm, mode!($($mode)?));
            })?)+
        }

        const LISTED: &[Mutant] = &[$(Mutant::$mutant,)+];
    };
}

/// The mode of a sweep: `Full` if nothing else is said.
#[cfg(not(debug_assertions))]
macro_rules! mode {
    () => {
        vr_core::Durability::Full
    };
    ($mode:ident) => {
        vr_core::Durability::$mode
    };
}

#[cfg(not(debug_assertions))]
mod sweeps {
    use core::time::Duration;

    use vr_core::{Durability, model::mutants::Mutant};
    use vr_sim::simulator::{RunOptions, run};

    use super::objection;

    /// One of the first `seeds` seeds fails because of the mutant, with storms of `storm` seconds
    /// over `replicas` replicas that run in the mode `durability`.
    #[expect(clippy::print_stdout, reason = "shown with --nocapture, for the table")]
    pub(crate) fn found(
        mutant: Mutant,
        seeds: u64,
        replicas: u64,
        storm: u64,
        durability: Durability,
    ) {
        let storm = Duration::from_secs(storm);
        for seed in 0..seeds {
            let options = RunOptions { replicas, storm, durability, ..RunOptions::new(seed) };
            if let Some(said) = objection(mutant, || assert!(run(&options).events > 0)) {
                let first = said.lines().next().unwrap_or_default();
                assert!(said.contains(" violated: "), "{mutant}: '{first}' names no oracle");
                println!("{mutant}: seed {seed} of {replicas}: {first}");
                return;
            }
        }
        panic!("no seed below {seeds} finds {mutant}");
    }
}

mutants! {
    ack_before_sync: AckBeforeSync, crash::power_cuts_at_any_moment_lose_nothing_acknowledged, "O7 violated", found by 5 seeds of 3 for 3 s;
    primary_counts_unsynced: PrimaryCountsUnsynced, durability::the_primary_waits_for_its_own_disk, "O1 violated", found by 5 seeds of 3 for 3 s;
    promise_after_view_change: PromiseAfterViewChange, crash::an_op_prepared_by_a_majority_survives_its_primary, "O7 violated", found by 5 seeds of 3 for 3 s;
    log_before_promise: LogBeforePromise, durability::a_log_is_replaced_after_the_promise, "O7 violated", found by 150 seeds of 3 for 3 s;
    superblock_before_log: SuperblockBeforeLog, durability::an_installation_that_is_cut_short_is_none, "O7 violated";
    log_not_synced: LogNotSynced, crash::a_group_that_lost_power_has_everything_it_acknowledged, "O7 violated", found by 5 seeds of 3 for 3 s;
    superblock_not_synced: SuperblockNotSynced, durability::a_promise_survives_crashes, "O7 violated", found by 5 seeds of 3 for 3 s;
    sync_error_ignored: SyncErrorIgnored, storage::a_replica_whose_sync_failed_stops, "O9 violated", found by 40 seeds of 3 for 3 s;
    commit_short_of_quorum: CommitShortOfQuorum, partition::only_one_side_of_a_split_commits, "O1 violated", found by 5 seeds of 3 for 3 s;
    reply_before_commit: ReplyBeforeCommit, clients::what_was_answered_is_kept, "monotone violated", found by 5 seeds of 3 for 3 s;
    commit_regresses: CommitRegresses, duel_of_primaries::commit_numbers_are_clamped_and_never_go_back, "monotone violated", found by 5 seeds of 3 for 3 s;
    commit_beyond_log: CommitBeyondLog, duel_of_primaries::commit_numbers_are_clamped_and_never_go_back, "assert violated", found by 20 seeds of 3 for 3 s;
    commit_over_uncertain_log: CommitOverUncertainLog, views::a_commit_number_is_about_one_log, "O4 violated", found by 200 seeds of 3 for 3 s;
    entry_time_of_wall_clock: EntryTimeOfWallClock, clock::time_in_the_log_follows_no_jump, "O4 violated", found by 5 seeds of 3 for 3 s;
    restarted_primary_resumes: RestartedPrimaryResumes, crash::a_restarted_primary_leaves_its_view, "assert violated", found by 10 seeds of 3 for 3 s;
    truncate_on_hearsay: TruncateOnHearsay, views::hearsay_of_a_view_costs_no_entry, "O2 violated", found by 1000 seeds of 3 for 6 s;
    log_view_before_log: LogViewBeforeLog, durability::a_log_view_is_that_of_a_log, "O3 violated", found by 20 seeds of 3 for 3 s;
    log_view_of_last_entry: LogViewOfLastEntry, durability::a_vote_names_the_durable_log_view, "O7 violated", found by 40 seeds of 3 for 3 s;
    longest_log_wins: LongestLogWins, views::the_later_log_wins_over_the_longer_one, "O2 violated", found by 1000 seeds of 3 for 6 s;
    lower_start_accepted: LowerStartAccepted, views::a_late_start_of_a_lower_view_is_ignored, "O3 violated", found by 200 seeds of 3 for 6 s;
    lost_votes_intact: LostVotesIntact, lost_log::a_group_blocks_where_something_may_be_lost, "O2 violated", found by 150 seeds of 3 for 3 s in ViewOnly;
    own_view_start_accepted: OwnViewStartAccepted, lost_log::a_late_start_of_its_own_view_is_no_log, "O2 violated";
    recovery_without_nonce: RecoveryWithoutNonce, lost_log::an_answer_to_an_earlier_life_is_no_log, "O2 violated";
    restarted_primary_unbroken: RestartedPrimaryUnbroken, lost_log::a_primary_that_restarted_stands_for_nothing, "O2 violated";
    lost_votes_count: LostVotesCount, lost_log::two_quick_crashes_block_the_group, "O2 violated";
    log_view_of_lost_log: LogViewOfLostLog, lost_log::a_lost_log_counts_with_the_view_that_it_was_complete_in, "O7 violated";
    loss_forgotten: LossForgotten, storage::a_log_that_cannot_be_identified_is_lost_until_it_is_given_back, "Recovering";
    no_crash_vector: NoCrashVector, forgotten::a_promise_of_an_earlier_life_starts_no_view, "O2 violated";
    votes_not_pruned: VotesNotPruned, forgotten::a_promise_is_dropped_when_a_later_life_becomes_known, "O2 violated";
    crash_vector_volatile: CrashVectorVolatile, wiped_disk::a_crash_does_not_forget_who_was_wiped, "O2 violated";
    single_primary_believed: SinglePrimaryBelieved, forgotten::the_word_of_one_primary_is_not_enough, "O1 violated";
    damage_is_absence: DamageIsAbsence, storage::what_is_damaged_is_not_voted_away, "O2 violated";
    binding_suspicion: BindingSuspicion, partition::a_backup_that_only_sends_does_not_disturb, "nobody follows a single vote", found by 200 seeds of 5 for 3 s;
    no_check_quorum: NoCheckQuorum, partition::a_primary_that_only_sends_steps_down, "group.view() > View(0)";
    no_view_sync: NoViewSync, duel_of_primaries::of_two_primaries_one_wins, "O9 violated", found by 200 seeds of 3 for 3 s;
    no_start_repair: NoStartRepair, duel_of_primaries::a_backup_that_missed_the_start_of_a_view_asks_for_it, "the view is told again and not left", found by 5 seeds of 3 for 3 s;
    checkpoint_of_one: CheckpointOfOne, checkpoints::the_odd_replica_stops, "stopped: diverged' is not in";
    ack_before_snapshot: AckBeforeSnapshot, checkpoints::a_checkpoint_is_named_before_it_is_spoken_of, "O7 violated";
    companion_without_table: CompanionWithoutTable, on_disk::sessions_are_on_disk_with_the_state, "not with a reply";
    execute_twice: ExecuteTwice, client_retry::a_request_that_arrives_many_times_executes_once, "O6 violated", found by 5 seeds of 3 for 3 s;
    forgotten_is_new: ForgottenIsNew, tickets::a_reply_that_left_the_window_leaves_the_outcome, "O6 violated", found by 20 seeds of 3 for 3 s;
    many_in_part: ManyInPart, many::several_operations_have_one_place, "O4 violated", found by 20 seeds of 3 for 3 s;
    answer_unexecuted: AnswerUnexecuted, clients::a_repeated_request_waits_for_its_execution, "O5 violated", found by 20 seeds of 3 for 3 s;
    dedup_at_receipt: DedupAtReceipt, clients::a_request_that_a_view_change_dropped_is_taken_again, "not with a reply";
    read_without_quorum: ReadWithoutQuorum, reads::a_deposed_primary_does_not_answer_queries, "group.ended(read).is_none()";
    read_before_start: ReadBeforeStart, clients::no_query_overtakes_what_was_acknowledged, "O6 violated", found by 200 seeds of 3 for 3 s;
    token_unheeded: TokenUnheeded, reads::a_causal_query_sees_what_its_token_names, "O6 violated", found by 20 seeds of 3 for 3 s;
    lease_unheeded: LeaseUnheeded, leases::nobody_replaces_a_primary_before_its_lease_ends, "O8 violated";
    lease_forgotten: LeaseForgotten, leases::a_backup_that_restarts_keeps_its_grants, "O8 violated";
    lease_without_drift: LeaseWithoutDrift, leases::nobody_replaces_a_primary_before_its_lease_ends, "O8 violated";
    evict_only_at_primary: EvictOnlyAtPrimary, client_retry::a_full_table_closes_the_session_used_longest_ago, "O4 violated";
    endless_forwards: EndlessForwards, limits::a_backup_holds_no_more_than_it_may, "O11 violated", found by 20 seeds of 3 for 3 s;
    endless_log: EndlessLog, limits::a_log_that_cannot_be_shortened_ends_where_it_is_full, "O11 violated";
    genesis_by_quorum: GenesisByQuorum, genesis::a_wiped_founder_founds_no_second_group, "O1 violated";
    any_founder: AnyFounder, genesis::answers_that_were_never_true_together_found_nothing, "O1 violated";
    genesis_without_nonce: GenesisWithoutNonce, genesis::old_answers_found_no_second_group, "O1 violated";
    no_certificate_hash: NoCertificateHash, genesis::what_a_forgotten_disk_said_is_not_processed, "assert violated";
    superseded_goes_on: SupersededGoesOn, force::an_old_majority_stops_at_the_word_of_one, "what the scenario waits for does not come about";
    blank_catches_up: BlankCatchesUp, genesis::a_wiped_replica_does_not_vote_without_what_it_forgot, "O2 violated";
}

/// What does no harm: the view in memory never goes back either.
const HARMLESS: &[Mutant] = &[Mutant::RecoveryIntoLowerView];

#[test]
fn every_mutant_is_listed() {
    let all = Mutant::ALL.iter().filter(|mutant| !HARMLESS.contains(mutant));
    assert!(all.eq(LISTED));
}

/// Rules that hold in all modes, broken in others than `Full`.
mod other_modes {
    use super::*;

    #[test]
    fn promise_after_view_change() {
        let story = lost_log::a_promise_binds_whoever_forgot_its_log;
        shown_by_story(Mutant::PromiseAfterViewChange, story, "O7 violated");
    }

    #[test]
    fn blank_catches_up() {
        let story = wiped_disk::a_blank_replica_is_not_one_that_lags;
        shown_by_story(Mutant::BlankCatchesUp, story, "O2 violated");
    }

    #[test]
    fn commit_short_of_quorum() {
        for story in [
            lost_log::a_minority_commits_nothing_from_memory,
            forgotten::of_two_primaries_without_disks_one_wins,
        ] {
            shown_by_story(Mutant::CommitShortOfQuorum, story, "O1 violated");
        }
    }
}
