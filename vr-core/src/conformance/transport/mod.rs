//! Do messages arrive as they were, from whom they came, and does nobody wait for a later lane?
//!
//! Bring a [`Harness`]: it makes transports on a network that nothing is wrong with. The suite
//! starts replicas and clients, lets them talk, fills queues, closes ends and brings them back.
//!
//! ```
//! use async_trait::async_trait;
//! use futures::future::BoxFuture;
//! use vr_core::{
//!     Members, Role, Transport,
//!     conformance::transport::{self, harness::Harness},
//!     node::local::LocalNetwork,
//! };
//!
//! struct Mine(LocalNetwork);
//!
//! #[async_trait(?Send)]
//! impl Harness for Mine {
//!     async fn members(&mut self, count: u64) -> Members {
//!         self.0 = LocalNetwork::new();
//!         Members::local(count).expect("a group of this size can be named")
//!     }
//!
//!     async fn transport(&mut self, _: Role) -> Box<dyn Transport> {
//!         Box::new(self.0.transport())
//!     }
//!
//!     fn patience(&self) -> BoxFuture<'static, ()> {
//!         Box::pin(async {}) // what was sent has arrived; over sockets, sleep some seconds
//!     }
//! }
//!
//! let mut mine = Mine(LocalNetwork::new());
//! futures::executor::block_on(transport::run(&mut mine)).assert_passed();
//! ```
//!
//! Transports are used on whatever runs the returned future; nothing else is needed of an async
//! runtime.

mod bench;
mod carrying;
mod ending;
pub mod harness;
mod limits;
mod meeting;
mod samples;

use std::panic::AssertUnwindSafe;

use futures::{FutureExt, future::LocalBoxFuture};

use crate::conformance::{
    report::{Outcome, Report, Verdict, panicked},
    transport::{
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
    meeting []:
        replicas_hear_of_each_other
        whoever_starts_late_is_heard_of
        a_client_and_every_member_hear_of_each_other
        clients_are_told_apart
        nobody_is_reached_before_the_start
        a_transport_is_started_once
        strangers_are_not_connected;
    meeting [Capability::Groups]:
        another_group_is_not_heard;
    carrying []:
        every_kind_of_message_arrives_as_it_was
        payloads_of_all_sizes_arrive_as_they_were
        many_messages_arrive
        a_message_comes_from_whom_it_names
        both_directions_carry_at_once
        whoever_receives_is_woken
        receiving_appends
        an_abandoned_receive_loses_nothing;
    limits []:
        a_message_over_the_limit_is_refused
        a_queue_has_an_end
        what_a_full_queue_took_arrives_and_makes_room
        every_lane_has_room_of_its_own
        control_overtakes_data
        control_overtakes_bulk
        data_overtakes_bulk
        one_call_returns_few_messages_of_one_peer
        one_call_returns_few_bytes_of_one_peer
        a_flood_of_one_peer_stops_no_other;
    ending []:
        the_end_of_a_replica_is_told
        the_end_of_a_client_is_told
        a_closed_end_is_gone_for_the_others
        what_was_flushed_before_closing_arrives
        after_closing_nothing_goes_and_nothing_comes
        closing_wakes_whoever_receives
        a_replica_comes_back
        a_client_that_comes_back_is_somebody_else;
}

/// Names of all cases, in the order in which they run.
pub fn cases() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name)
}

/// Runs every case, each on a network of its own.
pub async fn run(harness: &mut dyn Harness) -> Report {
    let mut report = Report::new("transport");
    for case in CASES {
        report.add(case.name, verdict(case, harness).await);
    }
    report
}

/// Runs the case of this name alone.
pub async fn run_case(harness: &mut dyn Harness, name: &str) -> Report {
    let mut report = Report::new("transport");
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
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(payload) => panicked(payload.as_ref()),
    }
}
