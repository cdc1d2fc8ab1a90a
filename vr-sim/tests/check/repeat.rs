//! The command that a report ends with repeats the run.

use std::{env, process::Command};

#[test]
fn the_variable_chooses_the_seed() {
    let run = Command::new(env::current_exe().unwrap())
        .args(["panics::a_panic_in_apply_is_found", "--exact", "--nocapture"])
        .env("VR_SIM_SEED", "31")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && text.contains("\nseed 31: replica "), "{text}");
    assert!(text.contains("VR_SIM_SEED=31 cargo test panics::a_panic_in_apply_is_found"), "{text}");
}
