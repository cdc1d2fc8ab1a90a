//! What a call asks for, and the checksum that it has on its way.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::types::Checksum;

/// What a call asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Whether these are several operations, which [`join`](crate::model::many::join) made one.
    pub many: bool,
    /// Its bytes.
    pub bytes: Bytes,
}

/// An operation of a batch, and the checksum of its bytes.
///
/// Whoever asks makes the checksum, and whoever decodes the batch compares it. A primary that places
/// the operations as they come gives it to their entries; for one that has to wait, as for a request
/// that came alone, it is made again.
///
/// Invariant: the checksum is that of the bytes; it was made of them, or compared with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summed {
    operation: Operation,
    checksum: Checksum,
}

impl Summed {
    /// `operation`, if its checksum is `checksum`.
    pub(in crate::model) fn verified(operation: Operation, checksum: Checksum) -> Option<Self> {
        let summed = Self::from(operation);
        (summed.checksum == checksum).then_some(summed)
    }

    /// What is asked for.
    #[must_use]
    pub const fn operation(&self) -> &Operation {
        &self.operation
    }

    /// XXH3-128 of its bytes.
    #[must_use]
    pub const fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// What is asked for, without the checksum.
    #[must_use]
    pub fn into_operation(self) -> Operation {
        self.operation
    }
}

impl From<Operation> for Summed {
    fn from(operation: Operation) -> Self {
        let checksum = Checksum::of(&operation.bytes);
        Self { operation, checksum }
    }
}

impl From<Bytes> for Operation {
    fn from(bytes: Bytes) -> Self {
        Self { many: false, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_of_other_bytes_is_refused() {
        let [one, other] = ["one", "other"].map(|bytes| Operation::from(Bytes::from(bytes)));
        let checksum = Summed::from(one.clone()).checksum();
        assert_eq!(Summed::verified(one.clone(), checksum), Some(one.into()));
        assert_eq!(Summed::verified(other, checksum), None);
    }
}
