//! Several requests of a session in one message, and several replies, taken one by one.

use core::iter;

use crate::model::{
    message::{Message, Replied, Replies, Reply, Request, Requests},
    operation::{Operation, Summed},
    types::{ClientId, OpNumber, RequestNumber},
};

/// Bytes that the operations or replies of one message have together, unless it has only one; less
/// where `Config::request_bytes_max` is less, so that it always fits into a frame.
pub const BATCH_BYTES_MAX: u32 = 64 << 10;

/// Bytes that each operation or reply of a batch takes besides its own, at most.
pub const BATCHED_BYTES: u64 = 21;

/// How many operations or replies a batch has at most: as many as fit if they are empty.
pub const BATCH_COUNT_MAX: u32 = 3120;

impl Requests {
    /// One by one.
    pub fn each(self) -> impl Iterator<Item = Request> {
        let Self { client, session, first, operations } = self;
        let numbers = iter::successors(Some(first), |number| Some(number.next()));
        numbers.zip(operations).map(move |(request_number, summed)| {
            let Operation { many, bytes: operation } = summed.into_operation();
            Request { client, session, request_number, many, operation }
        })
    }

    /// The first `count` of them, and the others.
    #[must_use]
    pub fn split_at(mut self, count: usize) -> (Self, Self) {
        let operations = self.operations.split_off(count.min(self.operations.len()));
        let first = self.first.plus(u64::try_from(self.operations.len()).unwrap_or(u64::MAX));
        let rest = Self { client: self.client, session: self.session, first, operations };
        (self, rest)
    }
}

impl Message {
    /// Asks for operations of a session under consecutive numbers from `first` on; one that is alone
    /// is a plain request.
    #[must_use]
    pub fn asking(
        client: ClientId,
        session: OpNumber,
        first: RequestNumber,
        mut operations: Vec<Operation>,
    ) -> Self {
        if operations.len() == 1
            && let Some(Operation { many, bytes: operation }) = operations.pop()
        {
            let request_number = first;
            return Self::Request(Request { client, session, request_number, many, operation });
        }
        let operations = operations.into_iter().map(Summed::from).collect();
        Self::Requests(Requests { client, session, first, operations })
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
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn operations(count: u8) -> Vec<Operation> {
        (0..count).map(|of| Bytes::from(vec![of]).into()).collect()
    }

    fn batch(count: u8) -> Requests {
        let (client, session) = (ClientId(1), OpNumber(2));
        let operations = operations(count).into_iter().map(Summed::from).collect();
        Requests { client, session, first: RequestNumber(3), operations }
    }

    #[test]
    fn parts_of_a_batch_keep_their_numbers() {
        let whole: Vec<Request> = batch(4).each().collect();
        for count in 0..6 {
            let (some, rest) = batch(4).split_at(count);
            assert_eq!(some.operations.len(), count.min(4));
            assert_eq!(some.each().chain(rest.each()).collect::<Vec<_>>(), whole, "{count}");
        }
    }
    #[test]
    fn one_alone_is_a_request() {
        let asking = |count| {
            let Requests { client, session, first, .. } = batch(count);
            Message::asking(client, session, first, operations(count))
        };
        let alone = batch(1).each().next().unwrap();
        assert_eq!(asking(1), Message::Request(alone));
        assert_eq!(asking(2), Message::Requests(batch(2)));
    }
}
