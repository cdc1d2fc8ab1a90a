//! Calls for several operations at once, and calls that go on with a ticket.

use bytes::Bytes;

use crate::{
    client::{
        Client,
        io::ClientInput,
        outcome::{NotResumed, RequestError},
        ticket::Ticket,
    },
    model::{many, operation::Operation},
    ports::state_machine::{StateMachine, decode, encode},
};

impl<S> Client<S> {
    /// Executes several operations, given as bytes, exactly once, and returns their replies.
    ///
    /// They have one place in the log: all of them execute, in order and with nothing in between,
    /// or none does. Together, with 4 bytes more for each, they are at most
    /// `Config::request_bytes_max` long. None at all are answered at once.
    ///
    /// # Errors
    /// [`RequestError`]; its [`outcome`](RequestError::outcome) is that of all of them. With
    /// [`PartlyMalformed`](RequestError::PartlyMalformed) those executed that could be read.
    pub async fn execute_many_raw(
        &self,
        operations: Vec<Bytes>,
    ) -> Result<Vec<Bytes>, RequestError> {
        if operations.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = many::join(&operations).ok_or(RequestError::Unencodable)?;
        replies_in(&self.perform(Operation { many: true, bytes }).await?)
    }

    /// Finds out what became of the request of an earlier call, made by this client or by another
    /// one, and returns its reply as bytes.
    ///
    /// It executes now, once, if it has not yet and its session still stands. Any number of clients
    /// may resume a ticket, at any time and at once.
    ///
    /// # Errors
    /// [`RequestError`]; its [`outcome`](RequestError::outcome) is that of the operation.
    pub async fn resume_raw(&self, ticket: Ticket) -> Result<Bytes, RequestError> {
        if ticket.is_many() {
            let (reason, ticket) = (NotResumed::Many, Box::new(ticket));
            return Err(RequestError::NotResumed { reason, ticket });
        }
        self.find_out(ticket).await
    }

    /// As [`resume_raw`](Self::resume_raw), for a call that may have been for several operations.
    ///
    /// # Errors
    /// As [`execute_many_raw`](Self::execute_many_raw).
    pub async fn resume_many_raw(&self, ticket: Ticket) -> Result<Vec<Bytes>, RequestError> {
        if ticket.is_many() {
            return replies_in(&self.find_out(ticket).await?);
        }
        Ok(vec![self.find_out(ticket).await?])
    }

    async fn find_out(&self, ticket: Ticket) -> Result<Bytes, RequestError> {
        let input = |call, deadline| ClientInput::Resume { call, deadline, ticket };
        Ok(self.call(input).await?.bytes)
    }
}

impl<S: StateMachine> Client<S> {
    /// Executes several operations exactly once, and returns their replies.
    ///
    /// They have one place in the log: all of them execute, in order and with nothing in between,
    /// or none does. Together, with 4 bytes more for each, they are at most
    /// `Config::request_bytes_max` long. None at all are answered at once.
    ///
    /// # Errors
    /// [`RequestError`]; its [`outcome`](RequestError::outcome) is that of all of them. With
    /// [`PartlyMalformed`](RequestError::PartlyMalformed) those executed that could be read.
    pub async fn execute_many(
        &self,
        operations: Vec<S::Operation>,
    ) -> Result<Vec<S::Reply>, RequestError> {
        let encoded: Result<Vec<Bytes>, _> = operations.iter().map(encode).collect();
        let encoded = encoded.map_err(|_| RequestError::Unencodable)?;
        decoded::<S>(&self.execute_many_raw(encoded).await?)
    }

    /// Finds out what became of the request of an earlier call, made by this client or by another
    /// one, and returns its reply.
    ///
    /// It executes now, once, if it has not yet and its session still stands. Any number of clients
    /// may resume a ticket, at any time and at once.
    ///
    /// # Errors
    /// [`RequestError`]; its [`outcome`](RequestError::outcome) is that of the operation.
    pub async fn resume(&self, ticket: Ticket) -> Result<S::Reply, RequestError> {
        let reply = self.resume_raw(ticket).await?;
        decode(&reply).map_err(|_| RequestError::ReplyUnreadable)
    }

    /// As [`resume`](Self::resume), for a call that may have been for several operations.
    ///
    /// # Errors
    /// As [`execute_many`](Self::execute_many).
    pub async fn resume_many(&self, ticket: Ticket) -> Result<Vec<S::Reply>, RequestError> {
        decoded::<S>(&self.resume_many_raw(ticket).await?)
    }
}

/// The replies to several operations, if all of them could be read.
fn replies_in(joined: &Bytes) -> Result<Vec<Bytes>, RequestError> {
    let replies = many::split_replies(joined).ok_or(RequestError::ReplyUnreadable)?;
    if replies.iter().all(Option::is_some) {
        return Ok(replies.into_iter().flatten().collect());
    }
    Err(RequestError::PartlyMalformed { replies })
}

fn decoded<S: StateMachine>(replies: &[Bytes]) -> Result<Vec<S::Reply>, RequestError> {
    let replies: Result<Vec<S::Reply>, _> = replies.iter().map(|reply| decode(reply)).collect();
    replies.map_err(|_| RequestError::ReplyUnreadable)
}
