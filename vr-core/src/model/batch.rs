//! Several requests of a session in one message, and several replies, taken one by one.

use bytes::Bytes;

use crate::model::{
    message::{Operation, Outcome, Replied, Replies, Reply, Request, Requests},
    types::RequestNumber,
};

/// Bytes that the operations or replies of one message have together, unless it has only one; less
/// where `Config::request_bytes_max` is less, so that it always fits into a frame.
pub const BATCH_BYTES_MAX: u32 = 64 << 10;

/// Bytes that each operation or reply of a batch takes besides its own, at most.
pub const BATCHED_BYTES: u64 = 21;

/// How many operations or replies a batch has at most: as many as fit if they are empty.
pub const BATCH_COUNT_MAX: u32 = 3120;

impl Operation {
    /// How many bytes it has.
    pub(crate) fn length(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }
}

impl From<Bytes> for Operation {
    fn from(bytes: Bytes) -> Self {
        Self { many: false, bytes }
    }
}

impl Requests {
    /// One by one.
    pub fn each(self) -> impl Iterator<Item = Request> {
        let Self { client, session, first, operations } = self;
        let numbers = (first.0..=u64::MAX).map(RequestNumber);
        numbers.zip(operations).map(move |(request_number, Operation { many, bytes })| Request {
            client,
            session,
            request_number,
            many,
            operation: bytes,
        })
    }

    /// Bytes of the operations, and of what stands around each.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.operations.iter().map(|it| it.length().saturating_add(BATCHED_BYTES)).sum()
    }
}

impl From<Reply> for Replied {
    fn from(reply: Reply) -> Self {
        let Reply { request_number, op_number, outcome, .. } = reply;
        Self { request_number, op_number, outcome }
    }
}

impl Replies {
    /// One by one.
    pub fn each(self) -> impl Iterator<Item = Reply> {
        let client = self.client;
        self.replies.into_iter().map(move |Replied { request_number, op_number, outcome }| Reply {
            client,
            request_number,
            op_number,
            outcome,
        })
    }

    /// Bytes of the replies, and of what stands around each.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = |reply: &Replied| reply.outcome.bytes().saturating_add(BATCHED_BYTES);
        self.replies.iter().map(bytes).sum()
    }
}

impl Outcome {
    /// Bytes of the reply, if there is one.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Executed(reply) => u64::try_from(reply.len()).unwrap_or(u64::MAX),
            Self::Malformed | Self::Registered | Self::Evicted | Self::Forgotten => 0,
        }
    }
}
