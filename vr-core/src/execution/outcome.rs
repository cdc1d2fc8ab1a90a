//! What comes of an entry at the state machine: of one operation, or of several that it carries.

use core::time::Duration;

use bytes::Bytes;

use crate::{
    model::{
        entry::{EntryHeader, EntryKind},
        many,
        message::{Outcome, Reply},
    },
    ports::state_machine::{Context, RawStateMachine},
};

/// Executes what an entry asks for: one operation, or several with nothing in between; of these the
/// `first_only` if a mutant wants it so.
pub(super) fn outcome(
    state_machine: &mut dyn RawStateMachine,
    header: &EntryHeader,
    payload: &Bytes,
    first_only: bool,
) -> Outcome {
    let context = Context {
        viewstamp: header.viewstamp(),
        client: header.client,
        time: Duration::from_nanos(header.time),
        position: 0,
    };
    if header.kind == EntryKind::Many {
        return outcome_of_many(state_machine, &context, payload, first_only);
    }
    match state_machine.apply(&context, payload) {
        Ok(reply) => Outcome::Executed(reply),
        Err(_) => Outcome::Malformed,
    }
}

/// Executes several operations; one that cannot be read changes nothing and stops no other.
fn outcome_of_many(
    state_machine: &mut dyn RawStateMachine,
    context: &Context,
    payload: &Bytes,
    first_only: bool,
) -> Outcome {
    let Some(mut operations) = many::split(payload) else { return Outcome::Malformed };
    if first_only {
        operations.truncate(1);
    }
    let mut replies = Vec::with_capacity(operations.len());
    for (position, operation) in (0..).zip(operations) {
        let context = Context { position, ..*context };
        replies.push(state_machine.apply(&context, &operation).ok());
    }
    if replies.iter().all(Option::is_none) {
        return Outcome::Malformed;
    }
    Outcome::Executed(many::join_replies(&replies).unwrap_or_default())
}

/// The reply to the request of an entry.
pub(super) const fn reply_to(header: &EntryHeader, outcome: Outcome) -> Reply {
    Reply {
        client: header.client,
        request_number: header.request_number,
        op_number: header.op_number,
        outcome,
    }
}
