//! The services that are loaded: they count, so that what is measured is the group.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use vr_core::{
    Client, Context, Malformed, QueryContext, Raw, RawStateMachine, Read, SnapshotError,
    SnapshotReader, SnapshotSource, SnapshotWriter, StateMachine,
};

use crate::load::generator::Target;

/// Counts operations, whatever their bytes; replies with the count, in eight bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter(u64);

impl RawStateMachine for Counter {
    fn apply(&mut self, _: &Context, _: &Bytes) -> Result<Bytes, Malformed> {
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

/// Operations of fewer bytes are counted only.
const KEPT_BYTES_MIN: usize = 4096;

/// Keeps the last large operations, so that its state is as large as is wanted; replies with the
/// count of all, in eight bytes.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    count: u64,
    large: u64,
    slots: u64,
    kept: Vec<Bytes>,
}

impl Keeper {
    /// A service that keeps the last `slots` operations of at least 4 KiB.
    #[must_use]
    pub fn of(slots: u64) -> Self {
        Self { slots, ..Self::default() }
    }
}

impl RawStateMachine for Keeper {
    fn apply(&mut self, _: &Context, operation: &Bytes) -> Result<Bytes, Malformed> {
        if operation.len() >= KEPT_BYTES_MIN
            && let Some(slot) = self.large.checked_rem(self.slots)
        {
            // A copy: what arrives may be a small part of a large block.
            let kept = Bytes::copy_from_slice(operation);
            self.large += 1;
            match usize::try_from(slot).ok().and_then(|slot| self.kept.get_mut(slot)) {
                Some(place) => *place = kept,
                None => self.kept.push(kept),
            }
        }
        self.count += 1;
        Ok(Bytes::copy_from_slice(&self.count.to_le_bytes()))
    }

    fn query(&self, _: &QueryContext, _: Bytes) -> Result<Bytes, Malformed> {
        Ok(Bytes::copy_from_slice(&self.count.to_le_bytes()))
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        let number = |length: usize| u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes();
        for field in [self.count, self.large, self.slots] {
            out.write_all(&field.to_le_bytes())?;
        }
        out.write_all(&number(self.kept.len()))?;
        for kept in &self.kept {
            out.write_all(&number(kept.len()))?;
            out.write_all(kept)?;
        }
        Ok(())
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        let mut number = || {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes).map(|()| u64::from_le_bytes(bytes))
        };
        (self.count, self.large, self.slots) = (number()?, number()?, number()?);
        let operations = number()?;
        self.kept.clear();
        for _ in 0..operations {
            let mut length = [0; 8];
            from.read_exact(&mut length)?;
            let mut kept = Vec::new();
            from.by_ref().take(u64::from_le_bytes(length)).read_to_end(&mut kept)?;
            self.kept.push(kept.into());
        }
        Ok(())
    }

    fn fork(&self) -> Option<Box<dyn SnapshotSource>> {
        Some(Box::new(self.clone()))
    }
}

impl SnapshotSource for Keeper {
    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        RawStateMachine::snapshot(self, out)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_is_what_its_snapshot_says() {
        let mut keeper = Keeper::of(3);
        let large = |byte| vec![byte; KEPT_BYTES_MIN];
        for operation in [large(1), vec![9], large(2), large(3), large(4)] {
            keeper.apply(&Context::default(), &operation.into()).unwrap();
        }
        assert_eq!(keeper.kept, [large(4), large(2), large(3)]);
        let mut bytes = Vec::new();
        RawStateMachine::snapshot(&keeper, &mut SnapshotWriter::new(&mut bytes)).unwrap();
        let mut other = Keeper::default();
        other.restore(&mut SnapshotReader::new(&mut bytes.as_slice())).unwrap();
        assert_eq!((other.count, other.large, other.slots), (5, 4, 3));
        assert_eq!(other.kept, keeper.kept);
    }
}
