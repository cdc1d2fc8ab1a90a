//! A service under test: its operations run, its queries asked, its snapshots taken and restored.

use core::time::Duration;
use std::io::{self, Read, Write};

use bytes::Bytes;

use crate::{
    conformance::report::Failure,
    model::types::{ClientId, OpNumber, View, Viewstamp},
    ports::state_machine::{
        Context, Malformed, QueryContext, RawStateMachine, SnapshotReader, SnapshotSource,
        SnapshotWriter,
    },
};

/// How many positions of a history are tried.
const POSITIONS_MAX: usize = 64;

/// A reply or an answer.
pub(crate) type Returned = Result<Bytes, Malformed>;

/// Operations and queries, and what makes the services that they are for.
pub(crate) struct Trial<'a, R> {
    make: &'a dyn Fn() -> R,
    operations: &'a [Bytes],
    queries: &'a [Bytes],
}

impl<'a, R: RawStateMachine> Trial<'a, R> {
    pub(crate) fn new(
        make: &'a dyn Fn() -> R,
        operations: &'a [Bytes],
        queries: &'a [Bytes],
    ) -> Self {
        Self { make, operations, queries }
    }

    /// A service that nothing was done to.
    pub(crate) fn fresh(&self) -> R {
        (self.make)()
    }

    /// How many operations there are.
    pub(crate) const fn operations(&self) -> usize {
        self.operations.len()
    }

    /// How many queries there are.
    pub(crate) const fn queries(&self) -> usize {
        self.queries.len()
    }

    /// Numbers of operations after which something is tried; the first is 0, the last is all.
    pub(crate) fn positions(&self) -> Vec<usize> {
        let count = self.operations.len();
        if count < POSITIONS_MAX {
            return (0..=count).collect();
        }
        (0..=POSITIONS_MAX).map(|part| count * part / POSITIONS_MAX).collect()
    }

    /// Applies operation number `at`, counted from 0.
    pub(crate) fn apply(&self, service: &mut R, at: usize) -> Returned {
        let Some(operation) = self.operations.get(at) else { return Err(Malformed) };
        service.apply(&context(at), operation)
    }

    /// Applies the operations from `from` up to, but not including, `until`.
    pub(crate) fn advance(&self, service: &mut R, from: usize, until: usize) -> Vec<Returned> {
        (from..until).map(|at| self.apply(service, at)).collect()
    }

    /// A service that has applied the first `count` operations.
    pub(crate) fn after(&self, count: usize) -> R {
        let mut service = self.fresh();
        self.advance(&mut service, 0, count);
        service
    }

    /// The replies to all operations.
    pub(crate) fn replies(&self) -> Vec<Returned> {
        self.advance(&mut self.fresh(), 0, self.operations.len())
    }

    /// The answers to all queries of a service that has applied `applied` operations.
    pub(crate) fn answers(&self, service: &R, applied: usize) -> Vec<Returned> {
        let time = context(applied).time;
        let context = QueryContext { applied: op_number(applied), time };
        self.queries.iter().map(|query| service.query(&context, query.clone())).collect()
    }

    /// The answers to all queries, at every position.
    pub(crate) fn answers_along(&self) -> Vec<Returned> {
        let mut service = self.fresh();
        let mut answers = Vec::new();
        let mut applied = 0;
        for position in self.positions() {
            self.advance(&mut service, applied, position);
            applied = position;
            answers.extend(self.answers(&service, position));
        }
        answers
    }
}

/// What the operation at `at`, counted from 0, knows besides itself.
fn context(at: usize) -> Context {
    let number = u64::try_from(at).unwrap_or(u64::MAX);
    let viewstamp = Viewstamp { view: View(number / 16), op_number: op_number(at).next() };
    let client = ClientId(u128::from(number % 3) + 1);
    let time = Duration::from_secs(1_700_000_000) + Duration::from_millis(17 * number);
    Context { viewstamp, client, time, position: 0 }
}

fn op_number(count: usize) -> OpNumber {
    OpNumber(u64::try_from(count).unwrap_or(u64::MAX))
}

/// The snapshot of a service.
pub(crate) fn snapshot(service: &impl RawStateMachine) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let written = service.snapshot(&mut SnapshotWriter::new(&mut bytes));
    written.map_err(|error| Failure(format!("no snapshot can be written: {error}")))?;
    Ok(bytes)
}

/// The snapshot of a fork.
pub(crate) fn snapshot_of_fork(fork: &dyn SnapshotSource) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let written = fork.snapshot(&mut SnapshotWriter::new(&mut bytes));
    written.map_err(|error| Failure(format!("the fork cannot be written: {error}")))?;
    Ok(bytes)
}

/// Makes `service` what `bytes` say.
pub(crate) fn restore(service: &mut impl RawStateMachine, bytes: &[u8]) -> Result<(), Failure> {
    let mut from = bytes;
    let restored = service.restore(&mut SnapshotReader::new(&mut from));
    restored.map_err(|error| Failure(format!("its own snapshot cannot be restored: {error}")))
}

/// A stream that takes or gives a few bytes at a time, and fails after some.
#[derive(Debug)]
pub(crate) struct Trickle {
    pub(crate) bytes: Vec<u8>,
    at: usize,
    calls: usize,
    fails_at: Option<usize>,
}

impl Trickle {
    /// A stream over `bytes`.
    pub(crate) const fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0, calls: 0, fails_at: None }
    }

    /// A stream over `bytes` that fails at byte `at`.
    pub(crate) const fn failing(bytes: Vec<u8>, at: usize) -> Self {
        Self { bytes, at: 0, calls: 0, fails_at: Some(at) }
    }

    fn portion(&mut self, wanted: usize) -> io::Result<usize> {
        self.calls += 1;
        let until_failure = self.fails_at.map_or(usize::MAX, |at| at.saturating_sub(self.at));
        if until_failure == 0 {
            return Err(io::Error::other("this stream fails for the test"));
        }
        Ok(wanted.min(1 + self.calls % 5).min(until_failure))
    }
}

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.portion(bytes.len())?;
        self.bytes.extend_from_slice(bytes.get(..count).unwrap_or_default());
        self.at += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Trickle {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = self.bytes.len() - self.at;
        let count = self.portion(into.len())?.min(rest);
        let from = self.bytes.get(self.at..self.at + count).unwrap_or_default();
        if let Some(into) = into.get_mut(..count) {
            into.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}
