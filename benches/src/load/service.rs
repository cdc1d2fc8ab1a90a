//! The services that are loaded: they count, so that what is measured is the group.

use bytes::Bytes;
use vr_core::{
    Client, Context, Malformed, QueryContext, Raw, RawStateMachine, Read, SnapshotError,
    SnapshotReader, SnapshotWriter, StateMachine,
};

use crate::load::generator::Target;

/// Counts operations, whatever their bytes; replies with the count, in eight bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter(u64);

impl RawStateMachine for Counter {
    fn apply(&mut self, _: &Context, _: Bytes) -> Result<Bytes, Malformed> {
        self.0 += 1;
        Ok(Bytes::copy_from_slice(&self.0.to_le_bytes()))
    }

    fn query(&self, _: &QueryContext, _: Bytes) -> Result<Bytes, Malformed> {
        Ok(Bytes::copy_from_slice(&self.0.to_le_bytes()))
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        out.write_value(&self.0)
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.0 = from.read_value()?;
        Ok(())
    }
}

/// The same as a typed service, whose operations are encoded and decoded.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct TypedCounter(u64);

impl StateMachine for TypedCounter {
    type Operation = Bytes;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &Context, _: Bytes) -> u64 {
        self.0 += 1;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    vr_core::serde_snapshot!();
}

impl Target for Client<Raw> {
    async fn write(&self, payload: Bytes) -> Result<(), String> {
        self.execute_raw(payload).await.map(drop).map_err(|error| error.to_string())
    }

    async fn read(&self) -> Result<(), String> {
        let answer = self.query_raw(Bytes::new(), Read::Linearizable).await;
        answer.map(drop).map_err(|error| error.to_string())
    }
}

impl Target for Client<TypedCounter> {
    async fn write(&self, payload: Bytes) -> Result<(), String> {
        self.execute(payload).await.map(drop).map_err(|error| error.to_string())
    }

    async fn read(&self) -> Result<(), String> {
        let answer = self.query((), Read::Linearizable).await;
        answer.map(drop).map_err(|error| error.to_string())
    }
}
