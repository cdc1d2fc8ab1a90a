//! What stands beside a state that is on disk by itself: which ops it contains, and of which group.

use core::time::Duration;

use bytes::{Buf, BufMut, Bytes};

use crate::model::{
    certificate::CertificateHash,
    time::nanoseconds,
    types::{Checksum, GroupId, OpNumber},
};

/// Version of the companion's bytes.
const COMPANION_VERSION: u16 = 1;
/// Bytes in front of the client table.
const HEAD_BYTES: usize = 66;
/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 16;

/// Where a state stands that is on disk.
///
/// Within one group, which its certificate names, there is one committed history; so this says
/// exactly which operations the state contains, whatever became of the log beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persisted {
    /// The group.
    pub group: GroupId,
    /// Hash of its certificate.
    pub certificate: CertificateHash,
    /// The last op that is in the state.
    pub op_number: OpNumber,
    /// Checksum of the entry at that op.
    pub checksum: Checksum,
    /// Its time, since 1970.
    pub time: Duration,
}

/// What was on a state machine's own disk when its replica started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateOnDisk {
    /// Nothing.
    Empty,
    /// Something whose companion cannot be read.
    Unreadable,
    /// A state.
    At(Persisted),
}

impl Persisted {
    /// The companion of a state beside which `table` is the client table: little-endian fields, the
    /// table's bytes, and XXH3-128 over all of that.
    #[must_use]
    pub fn to_companion(&self, table: &[u8]) -> Bytes {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + table.len() + CHECKSUM_BYTES);
        bytes.put_u16_le(COMPANION_VERSION);
        bytes.put_u128_le(self.group.0);
        bytes.put_u128_le(self.certificate.0);
        bytes.put_u64_le(self.op_number.0);
        bytes.put_u128_le(self.checksum.0);
        bytes.put_u64_le(nanoseconds(self.time));
        bytes.put_slice(table);
        let checksum = Checksum::of(&bytes);
        bytes.put_u128_le(checksum.0);
        Bytes::from(bytes)
    }

    /// What [`to_companion`](Self::to_companion) made, and the table; `None` if that is not what
    /// these bytes are.
    #[must_use]
    pub fn of_companion(companion: &[u8]) -> Option<(Self, &[u8])> {
        let at = companion.len().checked_sub(CHECKSUM_BYTES)?;
        let (content, mut checksum) = companion.split_at_checked(at)?;
        let (mut head, table) = content.split_at_checked(HEAD_BYTES)?;
        if checksum.get_u128_le() != Checksum::of(content).0
            || head.get_u16_le() != COMPANION_VERSION
        {
            return None;
        }
        let persisted = Self {
            group: GroupId(head.get_u128_le()),
            certificate: CertificateHash(head.get_u128_le()),
            op_number: OpNumber(head.get_u64_le()),
            checksum: Checksum(head.get_u128_le()),
            time: Duration::from_nanos(head.get_u64_le()),
        };
        Some((persisted, table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSISTED: Persisted = Persisted {
        group: GroupId(1),
        certificate: CertificateHash(2),
        op_number: OpNumber(3),
        checksum: Checksum(4),
        time: Duration::from_nanos(5),
    };

    #[test]
    fn a_companion_is_read_as_it_was_written() {
        for table in [b"".as_slice(), b"table"] {
            let companion = PERSISTED.to_companion(table);
            assert_eq!(Persisted::of_companion(&companion), Some((PERSISTED, table)));
        }
    }

    #[test]
    fn a_damaged_companion_is_none() {
        let companion = PERSISTED.to_companion(b"table");
        for at in 0..companion.len() {
            let mut damaged = companion.to_vec();
            damaged[at] ^= 1;
            assert_eq!(Persisted::of_companion(&damaged), None, "byte {at}");
            assert_eq!(Persisted::of_companion(&companion[..at]), None, "{at} bytes");
        }
    }
}
