//! The picture of a trace in a real browser; skipped aloud where there is none.

use core::time::Duration;
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use vr_core::model::kind::Kind;
use vr_sim::{
    checker::Violation,
    cluster::{Cluster, R0, R1, R2},
    network::{faults::NetworkFaults, selection::Messages},
    workload::put,
};

/// Where `scripts/test-setup` puts the browser's driver.
fn driver() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let target = env::var_os("CARGO_TARGET_DIR").map_or(built, PathBuf::from);
    target.join("tools/browser/node_modules")
}

#[expect(clippy::print_stderr, reason = "what is skipped is said")]
fn is_missing(tool: &str, found: bool) -> bool {
    if !found {
        eprintln!("SKIP: no {tool}; scripts/test-setup installs it, and without it nobody looks");
    }
    !found
}

fn runs(tool: &str) -> bool {
    let version = Command::new(tool).arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// A group that sees a bit of everything.
fn eventful() -> Cluster<vr_sim::workload::Kv> {
    let mut group = Cluster::unstarted_of(3);
    group.keep_trace();
    group.start(R0);
    group.run_for(Duration::from_millis(10));
    group.start_all();
    group.run_until_converged();
    group.set_network_faults(NetworkFaults { loss: 20_000, ..NetworkFaults::none() });
    let client = group.client();
    for key in 0..20 {
        let call = client.request(put("k", key));
        group.run_until_answered(call);
    }
    let held = group.hold(Messages::of([Kind::PrepareOk]).from(R2));
    group.run_for(Duration::from_millis(20));
    group.release(held);
    group.crash(R0);
    group.run_until_normal();
    group.restart(R0);
    group.pause(R2);
    group.run_for(Duration::from_millis(100));
    group.resume(R2);
    group.isolate(R1);
    group.run_until_normal();
    group.heal_and_converge();
    group
}

#[test]
fn a_browser_shows_hovers_filters_and_moves() {
    let driver = driver();
    let has_driver = driver.join("playwright-core").is_dir();
    if is_missing("chromium", runs("chromium"))
        || is_missing("node", runs("node"))
        || is_missing("playwright-core", has_driver)
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (calm, violated) = (dir.path().join("calm.html"), dir.path().join("violated.html"));
    let group = eventful();
    group.write_trace(&calm).unwrap();
    let found = "</script><img src=x onerror=alert(1)> & \"quotes\"".to_owned();
    let violation = Violation { oracle: "O1", rule: "an op is committed once", found };
    group.witness().lock().unwrap().judge(group.now(), Err(violation));
    group.write_trace(&violated).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/picture/look.mjs");
    let mut look = Command::new("node");
    look.arg(script).arg(driver).arg("/usr/bin/chromium").args([calm, violated]);
    look.args(env::var_os("VR_PICTURE_SHOTS"));
    let output = look.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
