//! Runs one part of a replica a fixed number of times: `scripts/instructions` counts what it takes.

use std::{env, hint::black_box, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use vr_benches::{
    Nothing, entries,
    load::engines::{Engines as _, Execution, Group, Shape},
    prepare,
};
use vr_core::{
    Durability, Members, OpNumber, ReplicaId, WriteBatch,
    execution::{executor::Executor, work::Work},
    model::{
        durable::Identity,
        encoding::{
            entry::{decode_header, encode_header},
            frame::FrameParts,
            message,
        },
        entry::{Entry, EntryHeader, EntryKind, Run},
        types::{Checksum, ClientId, DiskId, GroupId, PersistId, RequestNumber, View},
    },
    ports::storage::Anchor,
    state::log::Log,
};
use vr_storage::{RealDisk, Store, StoreOptions};

/// Bytes of an operation.
const PAYLOAD_BYTES: usize = 256;
/// Entries of one batch.
const BATCH: u64 = 64;
/// Outcomes that are kept of each of many sessions.
const WINDOW: u32 = 8;
/// Clients of a session in the engines' loop, as in the loads.
const CLIENTS_PER_SESSION: usize = 64;
/// How much later every turn of the engines is; so short that heartbeats are few.
const TURN: Duration = Duration::from_micros(20);

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let part = arguments.next().context("which part?")?;
    let count: u64 = arguments.next().context("how often?")?.parse()?;
    let batches = count.div_ceil(BATCH);
    let (view_only, full) = (Durability::ViewOnly, Durability::Full);
    match part.as_str() {
        "header-encode" => header_encode(count),
        "header-decode" => header_decode(count),
        "payload-seal" => payload_seal(count),
        "payload-verify" => payload_verify(count),
        "prepare-encode" => prepare_encode(batches),
        "prepare-decode" => prepare_decode(batches),
        "log-append" => log_append(batches),
        "executor-apply" => executor_apply(batches),
        "executor-apply-64-sessions" => executor_apply_in_turn(64, batches),
        "executor-apply-10000-sessions" => executor_apply_in_turn(10_000, batches),
        "wal-append" => wal_append(batches),
        "engines-1" => engines(view_only, Execution::Counted, 1, count),
        "engines-64" => engines(view_only, Execution::Counted, 64, count),
        "engines-full-64" => engines(full, Execution::Counted, 64, count),
        "engines-executor-64" => engines(view_only, Execution::Full, 64, count),
        "primary-of-1" => primary_of(1, count),
        "primary-of-3" => primary_of(3, count),
        "primary-of-5" => primary_of(5, count),
        "primary-of-7" => primary_of(7, count),
        other => bail!("no part is called {other}"),
    }
}

/// What is counted: nothing outside of this function is.
#[inline(never)]
fn measured(work: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    black_box(work)()
}

/// The same, `count` times.
fn repeated<T>(count: u64, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<()> {
    measured(&mut || {
        for _ in 0..count {
            black_box(work()?);
        }
        Ok(())
    })
}

fn one_entry() -> anyhow::Result<Entry> {
    entries(1, PAYLOAD_BYTES).pop().context("there is one")
}

fn header_encode(count: u64) -> anyhow::Result<()> {
    let entry = one_entry()?;
    repeated(count, || Ok(encode_header(black_box(&entry.header))))
}

fn header_decode(count: u64) -> anyhow::Result<()> {
    let encoded = encode_header(&one_entry()?.header);
    repeated(count, || Ok(decode_header(black_box(&encoded))?))
}

fn payload_seal(count: u64) -> anyhow::Result<()> {
    let entry = one_entry()?;
    repeated(count, || Ok(Entry::new(black_box(entry.header), entry.payload.clone())))
}

fn payload_verify(count: u64) -> anyhow::Result<()> {
    let entry = one_entry()?;
    repeated(count, || Ok(black_box(&entry).verify_payload()?))
}

fn prepare_encode(batches: u64) -> anyhow::Result<()> {
    let envelope = prepare(entries(BATCH - 1, PAYLOAD_BYTES));
    let mut parts = FrameParts::new();
    repeated(batches, || {
        parts.clear();
        Ok(message::encode(black_box(&envelope), &mut parts)?)
    })
}

fn prepare_decode(batches: u64) -> anyhow::Result<()> {
    let mut parts = FrameParts::new();
    message::encode(&prepare(entries(BATCH - 1, PAYLOAD_BYTES)), &mut parts)?;
    let encoded = parts.take_bytes();
    repeated(batches, || Ok(message::decode(black_box(&encoded))?))
}

/// The entries of `batches`, cut into them.
fn runs(batches: u64) -> Vec<Run> {
    let entries = entries(batches * BATCH - 1, PAYLOAD_BYTES);
    let size = usize::try_from(BATCH).unwrap_or(usize::MAX);
    entries.chunks(size).map(|chunk| chunk.to_vec().into()).collect()
}

/// What a backup's log does with prepares: chain, hand over, note that they are durable, read.
fn log_append(batches: u64) -> anyhow::Result<()> {
    let mut log = Log::recovered(Anchor { op_number: OpNumber(0), checksum: Checksum::ZERO }, &[]);
    let runs = runs(batches);
    measured(&mut || {
        for (run, id) in runs.iter().zip(1..).map(|(run, id)| (run, PersistId(id))) {
            let from = log.op_number().next();
            if !log.append_run(run, View(u64::MAX)) {
                bail!("the entries are a chain");
            }
            black_box(log.hand_over(id));
            log.persisted(id);
            black_box(log.entries(from, log.durable_op(), u64::MAX));
        }
        Ok(())
    })
}

/// The client table, and a service that does nothing.
fn executor_apply(batches: u64) -> anyhow::Result<()> {
    let mut executor = Executor::new(Box::new(Nothing), u32::try_from(BATCH)?);
    let runs = runs(batches);
    measured(&mut || {
        for run in &runs {
            executor.push(Work::Entries { entries: run.clone(), reply: true });
            executor.steps(usize::MAX);
            black_box(executor.take_finished());
        }
        Ok(())
    })
}

/// The same for operations of many sessions in turn.
fn executor_apply_in_turn(sessions: u64, batches: u64) -> anyhow::Result<()> {
    let mut executor = Executor::new(Box::new(Nothing), WINDOW);
    let filling = sessions * u64::from(WINDOW);
    let (registrations, mut requests) = in_turn(sessions, filling + batches * BATCH);
    let size = usize::try_from(BATCH)?;
    let in_batches = |entries: Vec<Entry>| -> Vec<Run> {
        entries.chunks(size).map(|chunk| chunk.to_vec().into()).collect()
    };
    let mut execute = |runs: &[Run]| {
        for run in runs {
            executor.push(Work::Entries { entries: run.clone(), reply: true });
            executor.steps(usize::MAX);
            black_box(executor.take_finished());
        }
    };
    let counted = in_batches(requests.split_off(usize::try_from(filling)?));
    execute(&in_batches(registrations));
    // From here on every session has as many outcomes as are kept of it.
    execute(&in_batches(requests));
    measured(&mut || {
        execute(&counted);
        Ok(())
    })
}

/// The registrations of so many sessions, and `count` requests of theirs, in turn.
fn in_turn(sessions: u64, count: u64) -> (Vec<Entry>, Vec<Entry>) {
    let payload = Bytes::from(vec![0x5a; PAYLOAD_BYTES]);
    let mut parent = Checksum::ZERO;
    let mut next = |number: u64| {
        let turn = number % sessions;
        let (kind, session, payload) = match number < sessions {
            // A registration says how many sessions there may be.
            true => (EntryKind::Register, sessions, Bytes::from_static(&[1; 16])),
            false => (EntryKind::Request, turn + 1, payload.clone()),
        };
        let header = EntryHeader {
            parent,
            client: ClientId(u128::from(turn)),
            view: View(3),
            op_number: OpNumber(number + 1),
            time: number + 1,
            session: OpNumber(session),
            request_number: RequestNumber(number / sessions),
            kind,
            ..EntryHeader::default()
        };
        let entry = Entry::new(header, payload);
        parent = entry.header.checksum;
        entry
    };
    let registrations = (0..sessions).map(&mut next).collect();
    (registrations, (sessions..sessions + count).map(next).collect())
}

fn wal_append(batches: u64) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let identity = Identity {
        group: GroupId(0),
        group_name: "parts".into(),
        members: Members::local(1)?.to_membership(),
        replica: ReplicaId(0),
        durability: Durability::Full,
        fresh_disk: DiskId(1),
    };
    let disk = RealDisk::open(directory.path())?;
    let (recovered, mut store) = Store::open(disk, &identity, StoreOptions::default())?;
    let mut parent = recovered.superblock.checkpoint.checksum;
    let mut next = |entry: &Entry| {
        let next = Entry::new(EntryHeader { parent, ..entry.header }, entry.payload.clone());
        parent = next.header.checksum;
        next
    };
    let batches: Vec<WriteBatch> = runs(batches)
        .iter()
        .map(|run| run.iter().map(&mut next).collect())
        .map(WriteBatch::of)
        .collect();
    measured(&mut || batches.iter().try_for_each(|batch| Ok(store.write(batch)?)))
}

/// Operations through three engines and back, in a time that passes alike in every run.
fn engines(
    durability: Durability,
    execution: Execution,
    clients: usize,
    count: u64,
) -> anyhow::Result<()> {
    let clients_per_session = CLIENTS_PER_SESSION;
    let mut group =
        Group::start(Shape { replicas: 3, durability, execution, clients, clients_per_session })?;
    measured(&mut || ask(&mut group, clients, count))
}

/// What of that the primary of a group of `replicas` has to do.
fn primary_of(replicas: u64, count: u64) -> anyhow::Result<()> {
    let shape = Shape {
        replicas,
        durability: Durability::ViewOnly,
        execution: Execution::Counted,
        clients: CLIENTS_PER_SESSION,
        clients_per_session: CLIENTS_PER_SESSION,
    };
    let mut group = Group::start(shape)?;
    group.watch_primary(measured);
    ask(&mut group, shape.clients, count)
}

/// Asks `group` for `count` operations.
fn ask(group: &mut Group, clients: usize, count: u64) -> anyhow::Result<()> {
    let payload = Bytes::from(vec![0x5a; PAYLOAD_BYTES]);
    (0..clients).for_each(|client| group.submit(client, payload.clone()));
    let (mut now, mut done, mut answered) = (group.formed(), 0, Vec::new());
    while done < count {
        now += TURN;
        group.turn(now, &mut answered)?;
        done += u64::try_from(answered.len())?;
        for client in answered.drain(..) {
            group.submit(client, payload.clone());
        }
    }
    Ok(())
}
