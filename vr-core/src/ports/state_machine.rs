//! The replicated service itself: the one trait that most users write.

use core::{fmt::Debug, marker::PhantomData, time::Duration};
use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::model::types::{ClientId, OpNumber, Viewstamp};

/// A deterministic service: the same operations in the same order give the same replies.
///
/// Every replica applies every committed operation, so `apply` must not read clocks, random
/// numbers, files, the environment, or the iteration order of hashed collections. Time is in the
/// [`Context`].
pub trait StateMachine: Send + 'static {
    /// What changes the state.
    type Operation: Serialize + DeserializeOwned + Send;
    /// What a change returns.
    type Reply: Serialize + DeserializeOwned + Send;
    /// What asks without changing.
    type Query: Serialize + DeserializeOwned + Send;
    /// What a question returns.
    type Answer: Serialize + DeserializeOwned + Send;

    /// Changes the state; called once per committed operation, in log order.
    ///
    /// # Panics
    /// A panic stops the node, with the op number as evidence.
    fn apply(&mut self, context: &Context, operation: Self::Operation) -> Self::Reply;

    /// Answers from the state as it is.
    fn query(&self, context: &QueryContext, query: Self::Query) -> Self::Answer;

    /// Writes the whole state to `out`.
    ///
    /// # Errors
    /// [`SnapshotError`] when `out` cannot be written.
    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError>;

    /// Replaces the state by what [`snapshot`](Self::snapshot) wrote.
    ///
    /// # Errors
    /// [`SnapshotError`] when `from` cannot be read or is not a snapshot of this service.
    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError>;

    /// Hands over a cheap view of the state that can be snapshotted elsewhere; `None` (the
    /// default) when the state cannot fork itself.
    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        None
    }

    /// What this state machine does besides, if its state is on disk by itself; `None` (the
    /// default) when it is in memory, so that each start makes it anew from a checkpoint and the
    /// log.
    fn on_disk(&mut self) -> Option<&mut dyn OnDisk> {
        None
    }
}

/// The byte-level twin of [`StateMachine`], for services with an encoding of their own.
pub trait RawStateMachine: Send + 'static {
    /// Changes the state; called once per committed operation, in log order. A clone of `operation`
    /// shares its bytes, and whatever they were received with.
    ///
    /// # Errors
    /// [`Malformed`] when the operation cannot be read; the state must then be unchanged, and the
    /// verdict must be the same on every replica.
    fn apply(&mut self, context: &Context, operation: &Bytes) -> Result<Bytes, Malformed>;

    /// Answers from the state as it is.
    ///
    /// # Errors
    /// [`Malformed`] when the query cannot be read.
    fn query(&self, context: &QueryContext, query: Bytes) -> Result<Bytes, Malformed>;

    /// Writes the whole state to `out`.
    ///
    /// # Errors
    /// [`SnapshotError`] when `out` cannot be written.
    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError>;

    /// Replaces the state by what [`snapshot`](Self::snapshot) wrote.
    ///
    /// # Errors
    /// [`SnapshotError`] when `from` cannot be read or is not a snapshot of this service.
    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError>;

    /// As [`StateMachine::fork`].
    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        None
    }

    /// As [`StateMachine::on_disk`].
    fn on_disk(&mut self) -> Option<&mut dyn OnDisk> {
        None
    }
}

/// What a state machine owes whose state outlives its process, in a file or a database of its own.
///
/// It returns itself from [`StateMachine::on_disk`]. Operations that
/// are applied belong to a transaction that stays open until [`persist`](Self::persist) makes it
/// durable, together with a *companion*: bytes that say which ops the state contains and what the
/// clients were told. After a restart execution goes on behind them, and nothing that is there is
/// executed or restored again.
///
/// What a crash leaves behind must be the state of the last `persist`, whole, with the companion of
/// the same `persist`; or nothing at all, with no companion. So an operation, a
/// [`restore`](StateMachine::restore) and a [`reset`](Self::reset) are not durable before the
/// `persist` that follows them. Queries and snapshots see them at once.
pub trait OnDisk {
    /// The companion of the last [`persist`](Self::persist); `None` if there was none, or nothing
    /// came of it. Asked once, at the start, before anything else.
    ///
    /// # Errors
    /// [`SnapshotError`] when the disk cannot be read; the node does not start.
    fn persisted(&mut self) -> Result<Option<Bytes>, SnapshotError>;

    /// Makes durable what the state contains, which is everything through op `applied`, and
    /// `companion` in the same transaction. Another one before it is replaced.
    ///
    /// May take as long as the disk does; right behind it a snapshot or a
    /// [`fork`](StateMachine::fork) may be asked for.
    ///
    /// # Errors
    /// [`SnapshotError`] when that is not certain; the node stops.
    fn persist(&mut self, applied: OpNumber, companion: &Bytes) -> Result<(), SnapshotError>;

    /// Empties the state, as it was before the first op: what is on disk is of no use.
    ///
    /// # Errors
    /// [`SnapshotError`] when that is not possible; the node stops.
    fn reset(&mut self) -> Result<(), SnapshotError>;
}

/// A frozen state that can be written elsewhere, while the live one goes on.
pub trait SnapshotSource: Send + 'static {
    /// Writes the frozen state to `out`.
    ///
    /// # Errors
    /// [`SnapshotError`] when `out` cannot be written.
    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError>;
}

/// What an operation may know besides itself; the same on every replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The operation's identity.
    pub viewstamp: Viewstamp,
    /// Who asked.
    pub client: ClientId,
    /// Wall time since 1970 that the primary chose; strictly growing along the log, and the same for
    /// the operations of one `execute_many`.
    pub time: Duration,
    /// Its place among the operations of one `execute_many`, which have the same viewstamp and
    /// time; 0 for one that came alone.
    pub position: u32,
}

/// What a query may know besides itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryContext {
    /// The last op that the state contains.
    pub applied: OpNumber,
    /// Wall time since 1970 that the primary chose; never before the last applied op's.
    pub time: Duration,
}

/// The bytes of an operation or a query are not what the service expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not what the state machine expects")]
pub struct Malformed;

/// Where a snapshot is written; in pieces of any size.
#[expect(missing_debug_implementations, reason = "wraps a stream that has none")]
pub struct SnapshotWriter<'a> {
    out: &'a mut (dyn Write + Send),
}

impl<'a> SnapshotWriter<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut (dyn Write + Send)) -> Self {
        Self { out }
    }

    /// Writes a whole small serde value.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] when the bytes cannot be written.
    pub fn write_value(&mut self, value: &impl Serialize) -> Result<(), SnapshotError> {
        let bytes = postcard::to_allocvec(value).map_err(|_| SnapshotError::Unreadable)?;
        Ok(self.out.write_all(&bytes)?)
    }
}

impl Write for SnapshotWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Where a snapshot is read from; in pieces of any size.
#[expect(missing_debug_implementations, reason = "wraps a stream that has none")]
pub struct SnapshotReader<'a> {
    from: &'a mut (dyn Read + Send),
}

impl<'a> SnapshotReader<'a> {
    /// Reads from `from`.
    pub fn new(from: &'a mut (dyn Read + Send)) -> Self {
        Self { from }
    }

    /// Reads the rest as one serde value.
    ///
    /// # Errors
    /// [`SnapshotError`] when the bytes cannot be read or are not such a value.
    pub fn read_value<T: DeserializeOwned>(&mut self) -> Result<T, SnapshotError> {
        let mut bytes = Vec::new();
        self.from.read_to_end(&mut bytes)?;
        postcard::from_bytes(&bytes).map_err(|_| SnapshotError::Unreadable)
    }
}

impl Read for SnapshotReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.from.read(into)
    }
}

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The stream failed.
    #[error("the snapshot's stream failed")]
    Io(#[from] io::Error),
    /// The bytes are not a snapshot of this service.
    #[error("the bytes are not a snapshot of this service")]
    Unreadable,
}

/// Writes `snapshot` and `restore` for a service that is one serde value.
///
/// ```
/// # use vr_core::{Context, QueryContext, StateMachine};
/// #[derive(Default, serde::Serialize, serde::Deserialize)]
/// struct Counter(u64);
///
/// impl StateMachine for Counter {
///     type Operation = u64;
///     type Reply = u64;
///     type Query = ();
///     type Answer = u64;
///     fn apply(&mut self, _: &Context, add: u64) -> u64 {
///         self.0 += add;
///         self.0
///     }
///     fn query(&self, _: &QueryContext, (): ()) -> u64 {
///         self.0
///     }
///     vr_core::serde_snapshot!();
/// }
/// ```
#[macro_export]
macro_rules! serde_snapshot {
    () => {
        fn snapshot(
            &self,
            out: &mut $crate::SnapshotWriter<'_>,
        ) -> Result<(), $crate::SnapshotError> {
            out.write_value(self)
        }

        fn restore(
            &mut self,
            from: &mut $crate::SnapshotReader<'_>,
        ) -> Result<(), $crate::SnapshotError> {
            *self = from.read_value()?;
            Ok(())
        }
    };
}

/// Adapts a [`StateMachine`] to bytes with postcard: one decode per operation per replica.
#[derive(Clone, Copy, Debug, Default)]
pub struct Typed<S>(pub S);

impl<S: StateMachine> RawStateMachine for Typed<S> {
    fn apply(&mut self, context: &Context, operation: &Bytes) -> Result<Bytes, Malformed> {
        let operation = decode(operation)?;
        encode(&self.0.apply(context, operation))
    }

    fn query(&self, context: &QueryContext, query: Bytes) -> Result<Bytes, Malformed> {
        let query = decode(&query)?;
        encode(&self.0.query(context, query))
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        self.0.snapshot(out)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.0.restore(from)
    }

    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        self.0.fork()
    }

    fn on_disk(&mut self) -> Option<&mut dyn OnDisk> {
        self.0.on_disk()
    }
}

/// The bytes of a typed value, as [`Typed`] reads them.
///
/// # Errors
/// [`Malformed`] when the value's `Serialize` fails.
pub fn encode(value: &impl Serialize) -> Result<Bytes, Malformed> {
    postcard::to_allocvec(value).map(Bytes::from).map_err(|_| Malformed)
}

/// The typed value that `bytes` hold, all of them.
///
/// # Errors
/// [`Malformed`] when they hold none, or more than one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(Malformed),
    }
}

/// Names the service that a typed client talks to, without owning one.
pub type Service<S> = PhantomData<fn() -> S>;
