//! Is what was acknowledged there after a crash, is nothing half done, and is no damage hidden?
//!
//! Bring a [`Harness`]: two methods make storage, the others harm it, as far as you can arrange
//! that. The suite writes histories with everything in them, ends the process at every change that
//! the storage makes, and compares what the next process finds.
//!
//! ```
//! use vr_core::{
//!     Storage,
//!     conformance::storage::{self, harness::Harness},
//! };
//!
//! struct Mine {
//!     directory: std::path::PathBuf,
//! }
//! # #[derive(Debug)]
//! # struct MyStorage(std::path::PathBuf);
//! # #[async_trait::async_trait]
//! # impl Storage for MyStorage {
//! #     async fn open(
//! #         self: Box<Self>,
//! #         _: &vr_core::model::durable::Identity,
//! #     ) -> Result<vr_core::Opened, vr_core::StorageError> {
//! #         Err(vr_core::StorageError::Poisoned)
//! #     }
//! # }
//!
//! impl Harness for Mine {
//!     fn fresh(&mut self) {
//!         let _ = std::fs::remove_dir_all(&self.directory);
//!     }
//!
//!     fn storage(&mut self) -> Box<dyn Storage> {
//!         Box::new(MyStorage(self.directory.clone()))
//!     }
//! }
//!
//! async fn my_storage_conforms(directory: std::path::PathBuf) {
//!     let report = storage::run(&mut Mine { directory }).await;
//!     report.assert_passed();
//! }
//! ```
//!
//! Writes and reads are awaited on whatever runs the returned future; nothing else is needed of an
//! async runtime.

mod bench;
mod content;
mod crashing;
mod cutting;
mod damage;
mod failing;
pub mod harness;
mod opening;
mod reading;
mod writing;

use std::panic::AssertUnwindSafe;

use futures::{FutureExt, future::LocalBoxFuture};

use crate::conformance::{
    report::{Outcome, Report, Verdict, panicked},
    storage::{
        bench::Bench,
        harness::{Capability, Harness},
    },
};

/// A case, what it needs, and what it does.
struct Case {
    name: &'static str,
    needs: &'static [Capability],
    run: for<'a, 'b> fn(&'a mut Bench<'b>) -> LocalBoxFuture<'a, Outcome>,
}

macro_rules! cases {
    ($($module:ident $needs:tt: $($name:ident)*;)*) => {
        const CASES: &[Case] = &[$($(Case {
            name: stringify!($name),
            needs: &$needs,
            run: |bench| Box::pin($module::$name(bench)),
        }),*),*];
    };
}

cases! {
    opening []:
        a_fresh_storage_is_blank
        a_fresh_storage_has_nothing_to_read
        an_unused_storage_is_still_blank_the_next_time
        the_disk_id_that_was_drawn_first_stays
        another_group_is_refused
        another_list_of_members_is_refused
        another_replica_is_refused
        another_durability_is_refused
        opening_often_changes_nothing
        a_little_is_written_in_each_life;
    opening [Capability::ExclusiveOpen]:
        a_second_open_is_refused;
    writing []:
        an_append_is_there_the_next_time
        many_appends_are_there_the_next_time
        an_append_follows_what_was_reopened
        an_empty_payload_is_kept
        a_large_payload_is_kept
        a_batch_of_many_entries_is_kept
        a_payload_of_any_bytes_is_kept
        every_field_of_a_header_is_kept
        entries_of_every_kind_are_kept
        an_empty_batch_changes_nothing
        a_superblock_alone_is_kept
        the_last_superblock_counts
        every_field_of_the_superblock_is_kept
        a_superblock_leaves_the_log_alone
        log_and_superblock_go_together
        marking_idle_changes_nothing
        a_gap_is_refused
        an_op_that_is_there_already_is_refused
        an_entry_with_another_parent_is_refused
        a_chain_that_breaks_inside_a_batch_is_refused
        a_cut_beyond_the_end_is_refused;
    cutting []:
        a_cut_to_each_position_is_kept
        a_cut_without_entries_is_kept
        a_cut_to_nothing_leaves_an_empty_log
        a_cut_of_an_empty_log_is_kept
        a_cut_with_more_entries_is_kept
        cut_follows_cut
        what_was_cut_off_never_comes_back
        a_cut_with_a_promise_is_kept
        a_cut_at_the_checkpoint_is_kept
        a_cut_below_a_release_breaks_nothing
        headers_begin_above_the_checkpoint
        a_release_keeps_what_is_above_it
        a_release_goes_with_its_checkpoint
        a_release_beyond_the_checkpoint_keeps_the_log
        an_old_release_changes_nothing
        everything_can_be_released
        what_was_released_is_right_or_missing
        everything_in_one_batch;
    reading []:
        each_entry_is_read_alone
        any_range_is_read
        a_range_beyond_the_end_ends_there
        a_range_that_begins_beyond_the_end_is_missing
        op_zero_is_missing
        an_empty_range_is_missing
        a_read_stops_at_its_limit
        a_read_returns_at_least_one_entry
        a_limit_counts_headers_too
        what_was_written_is_read_at_once
        a_read_across_a_cut_returns_the_new_entries
        an_abandoned_read_disturbs_nothing
        reads_run_beside_each_other
        a_read_runs_beside_a_write;
    crashing [Capability::Kill]:
        what_was_acknowledged_survives_a_kill
        a_kill_in_an_append
        a_kill_in_a_large_append
        a_kill_in_a_cut
        a_kill_in_a_cut_to_nothing
        a_kill_in_a_promise
        a_kill_in_an_append_with_a_promise
        a_kill_in_a_cut_with_a_promise
        a_kill_in_a_release
        a_kill_in_a_long_history
        a_kill_while_opening_after_a_kill
        after_its_ground_died_every_call_fails;
    crashing [Capability::PowerCut]:
        what_was_acknowledged_survives_a_power_cut
        a_power_cut_in_an_append
        a_power_cut_in_a_large_append
        a_power_cut_in_a_cut
        a_power_cut_in_a_cut_to_nothing
        a_power_cut_in_a_promise
        a_power_cut_in_an_append_with_a_promise
        a_power_cut_in_a_cut_with_a_promise
        a_power_cut_in_a_release
        a_power_cut_in_a_long_history
        what_was_read_survives_a_power_cut
        a_torn_tail_is_dropped_once;
    crashing [Capability::Kill, Capability::PowerCut]:
        a_power_cut_while_opening_after_a_crash;
    failing [Capability::Full]:
        a_full_disk_is_said
        a_full_disk_loses_nothing
        after_a_full_disk_every_call_fails
        a_full_disk_is_said_by_the_first_open;
    failing [Capability::FailedWrites]:
        a_failed_write_is_said
        a_failed_superblock_is_said
        after_a_failed_write_every_call_fails
        a_failed_write_loses_nothing;
    failing [Capability::FailedSyncs]:
        a_failed_sync_is_said
        after_a_failed_sync_every_call_fails
        a_failed_sync_loses_nothing;
    failing [Capability::FailedSyncs, Capability::Kill, Capability::PowerCut]:
        what_a_failed_sync_left_is_durable_once_returned;
    failing [Capability::ShortReads]:
        short_reads_change_nothing;
    damage [Capability::Damage]:
        no_flipped_bit_is_hidden
        no_zeroed_sector_is_hidden
        no_truncation_is_hidden
        telling_of_damage_changes_nothing
        a_repair_takes_the_place_of_what_is_damaged;
    writing []:
        a_repair_of_what_is_whole_changes_nothing
        a_repair_of_what_is_gone_is_left_out;
    damage [Capability::Damage, Capability::IdleMarker]:
        no_flipped_bit_below_the_marker_is_hidden;
    damage [Capability::Damage, Capability::DamageWhileOpen]:
        damage_under_an_open_storage_is_not_returned;
}

/// Names of all cases, in the order in which they run.
pub fn cases() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name)
}

/// Runs every case, each on a storage of its own.
pub async fn run(harness: &mut dyn Harness) -> Report {
    let mut report = Report::new("storage");
    for case in CASES {
        report.add(case.name, verdict(case, harness).await);
    }
    report
}

/// Runs the case of this name alone.
pub async fn run_case(harness: &mut dyn Harness, name: &str) -> Report {
    let mut report = Report::new("storage");
    match CASES.iter().find(|case| case.name == name) {
        Some(case) => report.add(case.name, verdict(case, harness).await),
        None => report.add(name, Verdict::Failed("there is no case of this name".to_owned())),
    }
    report
}

async fn verdict(case: &Case, harness: &mut dyn Harness) -> Verdict {
    if let Some(lacking) = case.needs.iter().find(|need| !harness.covers(**need)) {
        return Verdict::NotCovered(format!("the harness lacks {lacking:?}"));
    }
    let mut bench = Bench::new(harness);
    let outcome = AssertUnwindSafe((case.run)(&mut bench)).catch_unwind().await;
    bench.close();
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(payload) => panicked(payload.as_ref()),
    }
}
