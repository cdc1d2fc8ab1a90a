//! The bytes of entries and messages, on the wire and on disk, pinned by golden files.

mod batches;
pub mod chunk;
mod cold;
mod entries;
pub mod entry;
mod fields;
pub mod frame;
mod hot;
pub mod message;
#[cfg(test)]
mod tests;

/// Newest version of the messages' bytes; the handshake agrees on one that both ends speak.
///
/// Version 2 can say two things that version 1 cannot: that an answer to a heartbeat grants a lease,
/// and that a query is content with one. To an end that speaks version 1 the lease is not granted,
/// and the query takes a round.
///
/// Version 3 can say several requests, and several replies, in one message, that chunks of
/// checkpoints may come compressed, and such chunks. To an end that speaks an earlier one the former
/// are said one by one, and chunks come as they are.
///
/// Version 4 leaves out of an entry's header what follows from the one in front of it in the same
/// message.
///
/// Version 5 gives each operation of a batch of requests the checksum that its entry will have.
pub const WIRE_VERSION: u16 = 5;

/// Oldest version that is still spoken.
pub const WIRE_VERSION_MIN: u16 = 1;

/// The first version with leases.
pub(crate) const WIRE_VERSION_LEASES: u16 = 2;

/// The first version with batches of requests and of replies.
pub(crate) const WIRE_VERSION_BATCHES: u16 = 3;

/// The first version that says of an entry only what does not follow from the one before it.
pub(crate) const WIRE_VERSION_CHAINS: u16 = 4;

/// The first version whose batches of requests bring the checksums of their operations.
pub(crate) const WIRE_VERSION_SUMS: u16 = 5;

/// The first version with compressed chunks.
pub(crate) const WIRE_VERSION_COMPRESSION: u16 = 3;

/// A length or a number of items as it is written.
///
/// # Errors
/// [`CodecError::Long`] when a `u32` cannot say it.
fn length(what: &'static str, length: usize) -> Result<u32, CodecError> {
    u32::try_from(length).map_err(|_| CodecError::Long { what, bytes: length, bytes_max: u32::MAX })
}

/// Why bytes are not a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes end before the value does.
    #[error("{what} is cut short: {have} bytes where {need} are needed")]
    Short {
        /// What was being read.
        what: &'static str,
        /// How many bytes there are.
        have: usize,
        /// How many are needed.
        need: usize,
    },
    /// A checksum does not match.
    #[error("the checksum of {what} does not match")]
    Checksum {
        /// What was being read.
        what: &'static str,
    },
    /// A length, kind or version is not one of ours.
    #[error("{what} is {value}, which is not valid")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// What it said.
        value: u64,
    },
    /// The value is larger than its limit.
    #[error("{what} takes {bytes} bytes, more than the limit of {bytes_max}")]
    Long {
        /// What was being written.
        what: &'static str,
        /// How many bytes it takes.
        bytes: usize,
        /// How many it may take.
        bytes_max: u32,
    },
    /// The body of a cold message does not decode.
    #[error("the body of {what} does not decode")]
    Body {
        /// Which message.
        what: &'static str,
    },
}
