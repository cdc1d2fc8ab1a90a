//! Runs one part of a replica a fixed number of times, so that its instructions can be counted.

use std::{
    env,
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use vr_benches::load::engines::{Engines as _, Execution, Group};
use vr_core::Durability;

/// Bytes of an operation.
const PAYLOAD_BYTES: usize = 256;
/// How much later every turn of the engines is; short enough that heartbeats are few.
const TURN: Duration = Duration::from_micros(20);

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let part = arguments.next().context("which part?")?;
    let count: u64 = arguments.next().context("how often?")?.parse()?;
    match part.as_str() {
        "engines-1" => engines(Durability::ViewOnly, Execution::Counted, 1, count),
        "engines-64" => engines(Durability::ViewOnly, Execution::Counted, 64, count),
        "engines-256" => engines(Durability::ViewOnly, Execution::Counted, 256, count),
        "engines-full-64" => engines(Durability::Full, Execution::Counted, 64, count),
        "engines-executor-64" => engines(Durability::ViewOnly, Execution::Full, 64, count),
        other => bail!("no part is called {other}"),
    }
}

/// What is counted: nothing outside of this function is.
#[inline(never)]
fn measured(work: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    black_box(work)()
}

/// Operations through three engines and back.
fn engines(
    durability: Durability,
    execution: Execution,
    clients: usize,
    count: u64,
) -> anyhow::Result<()> {
    let mut group = Group::start(durability, execution, clients)?;
    let payload = Bytes::from(vec![0x5a; PAYLOAD_BYTES]);
    (0..clients).for_each(|client| group.submit(client, payload.clone()));
    let (mut now, mut done, mut answered) = (Instant::now(), 0, Vec::new());
    measured(&mut || {
        while done < count {
            now += TURN;
            group.turn(now, &mut answered)?;
            done += u64::try_from(answered.len())?;
            for client in answered.drain(..) {
                group.submit(client, payload.clone());
            }
        }
        Ok(())
    })
}
