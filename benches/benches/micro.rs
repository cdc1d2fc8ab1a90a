//! What one entry costs in the parts it passes through.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use vr_benches::{Nothing, PAYLOAD_BYTES, entries, prepare};
use vr_core::{
    execution::{executor::Executor, work::Work},
    model::{
        encoding::{
            entry::{decode_header, encode_header},
            frame::FrameParts,
            message,
        },
        entry::Entry,
    },
};

/// Entries of one batch: what a busy group prepares at once.
const BATCH: u32 = 64;
/// Requests that the client has in flight; all of a batch.
const WINDOW: u32 = BATCH;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    header(&mut criterion);
    payload(&mut criterion);
    frame(&mut criterion);
    executor(&mut criterion);
    criterion.final_summary();
}

/// The 128 bytes of an entry's header, each way.
fn header(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header");
    for entry in entries(0, 0) {
        let encoded = encode_header(&entry.header);
        group.bench_function("encode", |bencher| {
            bencher.iter(|| encode_header(black_box(&entry.header)));
        });
        group.bench_function("decode", |bencher| {
            bencher.iter(|| decode_header(black_box(&encoded)));
        });
    }
    group.finish();
}

/// Sealing a payload where it enters the group, and checking it where it arrives.
fn payload(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("payload");
    for bytes in PAYLOAD_BYTES {
        let Some(entry) = entries(1, bytes).pop() else { continue };
        group.bench_with_input(BenchmarkId::new("seal", bytes), &entry, |bencher, entry| {
            let parts = || (entry.header, entry.payload.clone());
            let seal = |(header, payload)| Entry::new(header, payload);
            bencher.iter_batched(parts, seal, BatchSize::SmallInput);
        });
        group.bench_with_input(BenchmarkId::new("verify", bytes), &entry, |bencher, entry| {
            bencher.iter(|| black_box(entry).verify_payload());
        });
    }
    group.finish();
}

/// A prepare with a batch of entries, to segments and back.
fn frame(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prepare");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    for bytes in PAYLOAD_BYTES {
        let envelope = prepare(entries(u64::from(BATCH) - 1, bytes));
        group.bench_with_input(BenchmarkId::new("encode", bytes), &envelope, |bencher, it| {
            let mut parts = FrameParts::new();
            bencher.iter(|| {
                parts.clear();
                message::encode(black_box(it), &mut parts)
            });
        });
        let encoded = encoded(&envelope);
        group.bench_with_input(BenchmarkId::new("decode", bytes), &encoded, |bencher, it| {
            bencher.iter(|| message::decode(black_box(it)));
        });
    }
    group.finish();
}

fn encoded(envelope: &vr_core::model::message::Envelope) -> Bytes {
    let mut parts = FrameParts::new();
    message::encode(envelope, &mut parts).expect("a batch fits into a frame");
    parts.take_bytes()
}

/// A batch of committed entries, applied with session checks and replies.
fn executor(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("executor");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    for bytes in PAYLOAD_BYTES {
        let entries = entries(u64::from(BATCH) - 1, bytes);
        group.bench_with_input(BenchmarkId::new("apply", bytes), &entries, |bencher, entries| {
            let ready = || {
                let mut executor = Executor::new(Box::new(Nothing), WINDOW);
                executor.push(Work::Entries { entries: entries.clone().into(), reply: true });
                executor
            };
            let apply = |mut executor: Executor| {
                while executor.step() {}
                executor.take_finished()
            };
            bencher.iter_batched(ready, apply, BatchSize::SmallInput);
        });
    }
    group.finish();
}
