//! The bytes of entries and messages: one form for the wire and the disk, pinned by golden files.

mod cold;
pub mod entry;
mod fields;
pub mod frame;
mod hot;
pub mod message;
#[cfg(test)]
mod tests;

/// Version of the messages' bytes; the handshake agrees on one within a range.
pub const WIRE_VERSION: u16 = 1;

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
