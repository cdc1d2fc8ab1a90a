//! How many bytes of an operation or a query a client's message carries, and how many may wait.

use crate::model::{
    config::Config,
    message::{Forward, Query, Request},
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
