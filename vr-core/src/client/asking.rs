//! A session's queries: asked of one replica, and of the next one when it does not answer.

use bytes::Bytes;

use crate::{
    client::{
        backoff::pause,
        call::Waiting,
        io::Completed,
        outcome::RequestError,
        queries::InQuestion,
        route::Route,
        session::{Session, to_u32, to_usize},
    },
    model::{
        message::{Answer, Rejection},
        read::Read,
        time::Instant,
        types::{ReplicaId, RequestNumber},
    },
};

impl Session {
    pub(crate) fn on_query(&mut self, now: Instant, waiting: Waiting, read: Read, query: Bytes) {
        if let Err(error) = self.require_small(&query) {
            return self.outbox.fail(waiting, error);
        }
        if self.queries.len() >= to_usize(self.options.queries_max) {
            return self
                .outbox
                .fail(waiting, RequestError::Busy { waiting: to_u32(self.queries.len()) });
        }
        let asked = match read {
            Read::Linearizable | Read::Lease => self.route.target(),
            Read::Local | Read::Causal(_) => self.route.nearest(),
        };
        self.expiry_at = self.expiry_at.min(waiting.deadline);
        self.ask_again_at = self.ask_again_at.min(now + self.options.retry_interval);
        let number = self.queries.ask(waiting, read, query.clone(), asked);
        if let Some(to) = asked {
            self.outbox.query(to, number, read, query);
        }
    }

    pub(crate) fn on_answer(&mut self, answer: Answer) {
        let Some(waiting) = self.queries.answer(answer.request_number) else { return };
        let result = answer
            .answer
            .map(|bytes| Completed { op_number: answer.op_number, bytes })
            .ok_or(RequestError::Malformed);
        self.outbox.done(waiting, result);
    }

    pub(crate) fn on_query_rejected(
        &mut self,
        now: Instant,
        number: RequestNumber,
        reason: Rejection,
    ) {
        match reason {
            Rejection::Busy(limit) => {
                let again_at = now + pause(self.options.busy_interval, 0, self.jitter());
                if self.queries.refuse(number, again_at) {
                    self.last_busy = Some(limit);
                    self.ask_again_at = self.ask_again_at.min(again_at);
                }
            }
            Rejection::TooLarge { bytes, bytes_max } => {
                if let Some(waiting) = self.queries.answer(number) {
                    let bytes = u64::from(bytes);
                    self.outbox.fail(waiting, RequestError::TooLarge { bytes, bytes_max });
                }
            }
            // A query needs no session.
            Rejection::Evicted => {}
        }
    }

    pub(crate) fn ask_again(
        &mut self,
        now: Instant,
        number: RequestNumber,
        choose: impl FnOnce(&Route, &InQuestion) -> Option<ReplicaId>,
    ) {
        let jitter = self.jitter();
        let route = &self.route;
        let again = self.queries.ask_again(number, now, jitter, |asked| choose(route, asked));
        if let Some((to, InQuestion { read, query, .. })) = again {
            self.outbox.query(to, number, read, query);
        }
    }
}
