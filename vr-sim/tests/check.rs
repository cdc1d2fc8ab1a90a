//! Services with one fault each, as people write them, and what the check says about them.

#[path = "check/bank.rs"]
mod bank;
#[path = "check/blind.rs"]
mod blind;
#[path = "check/buffered.rs"]
mod buffered;
#[path = "check/clock.rs"]
mod clock;
#[path = "check/forgetful.rs"]
mod forgetful;
#[path = "check/hashed.rs"]
mod hashed;
#[path = "check/options.rs"]
mod options;
#[path = "check/panics.rs"]
mod panics;
#[path = "check/repeat.rs"]
mod repeat;
#[path = "check/sound.rs"]
mod sound;
#[path = "check/unsorted.rs"]
mod unsorted;

use std::panic::{AssertUnwindSafe, catch_unwind};

use vr_sim::{Sim, check, cluster::client::Service};

/// What the check of `S` says when it fails; `test` must not fail for any other reason.
fn complaint<S: Service + Default>(test: impl Fn(&mut Sim<S>)) -> String {
    let run = || check(0..50, test);
    let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("the fault is found");
    payload.downcast_ref::<String>().expect("the message is a text").clone()
}

/// Requires that `text` has all of `parts`, in this order.
fn assert_says(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("'{part}' is missing from:\n{text}"));
        rest = &rest[at + part.len()..];
    }
}
