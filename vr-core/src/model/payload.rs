//! How many bytes of operations, queries and replies a message carries, and how many may wait.

use crate::model::{
    batch::BATCHED_BYTES,
    config::Config,
    message::{Forward, Outcome, Query, Replies, Request, Requests},
    operation::Operation,
};

/// The length of `bytes`, as sizes are counted.
#[must_use]
pub fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl Request {
    /// Bytes of its operation.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        length(&self.operation)
    }
}

impl Operation {
    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> u64 {
        length(&self.bytes)
    }
}

impl Requests {
    /// Bytes of the operations, and of what stands around each.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.operations.iter().map(|it| it.operation().length().saturating_add(BATCHED_BYTES)).sum()
    }
}

impl Outcome {
    /// Bytes of the reply, if there is one.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Executed(reply) => length(reply),
            Self::Malformed | Self::Registered | Self::Evicted | Self::Forgotten => 0,
        }
    }
}

impl Replies {
    /// Bytes of the replies, and of what stands around each.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let replies = self.replies.iter();
        replies.map(|it| it.outcome.bytes().saturating_add(BATCHED_BYTES)).sum()
    }
}

impl Query {
    /// Bytes of the query.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        length(&self.query)
    }
}

impl Forward {
    /// Bytes of its operation; a registration has none.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Request(request) => request.bytes(),
            Self::Register(_) => 0,
        }
    }
}

impl Config {
    /// Whether `bytes` more may wait in a queue that holds `held` already.
    pub(crate) const fn may_wait(&self, held: u64, bytes: u64) -> bool {
        held.saturating_add(bytes) <= self.queue_bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_may_be_filled_to_its_last_byte() {
        let config = Config { queue_bytes_max: 10, ..Config::default() };
        assert!(config.may_wait(7, 3) && !config.may_wait(7, 4) && !config.may_wait(1, u64::MAX));
    }
}
