//! A causal query is answered with no less than its token names (O6).

use std::collections::BTreeMap;

use vr_core::{
    CausalToken, OpNumber, Read,
    model::{
        message::{Envelope, Message},
        types::{ClientId, RequestNumber},
    },
};

use crate::checker::{Verdict, Violation};

/// What causal queries have asked for.
#[derive(Debug, Default)]
pub struct Causal {
    asked: BTreeMap<(ClientId, RequestNumber), CausalToken>,
    answered: u64,
}

impl Causal {
    /// Somebody sent `envelope`.
    ///
    /// # Errors
    /// When it answers a causal query from a state older than its token.
    pub fn sent(&mut self, envelope: &Envelope) -> Verdict {
        if let Message::Query(m) = &envelope.message
            && let Read::Causal(token) = m.read
        {
            self.asked.insert((m.client, m.request_number), token);
        } else if let Message::Answer(m) = &envelope.message
            && let Some(token) = self.asked.get(&(m.client, m.request_number))
        {
            self.answered += 1;
            return check(*token, CausalToken { epoch: envelope.epoch, op_number: m.op_number });
        }
        Ok(())
    }

    /// How many answers there were to causal queries.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.answered
    }
}

/// An epoch that began by force may lack what was seen in an earlier one.
fn check(token: CausalToken, answered: CausalToken) -> Verdict {
    let lost = answered.epoch > token.epoch;
    if lost || answered >= token {
        return Ok(());
    }
    let OpNumber(op_number) = answered.op_number;
    let found = format!("an answer from op {op_number} to a query with {token:?}");
    Err(Violation::new("O6", "a causal query sees what its token names", found))
}

#[cfg(test)]
mod tests {
    use vr_core::model::types::Epoch;

    use super::*;

    #[test]
    fn an_answer_from_before_the_token_is_noticed() {
        let token = |epoch, op| CausalToken { epoch: Epoch(epoch), op_number: OpNumber(op) };
        assert_eq!(check(token(0, 7), token(0, 7)), Ok(()));
        assert!(check(token(0, 7), token(0, 6)).is_err());
        assert_eq!(check(token(0, 7), token(1, 3)), Ok(()), "an operator gave up the rest");
        assert!(check(token(1, 3), token(0, 7)).is_err());
    }
}
