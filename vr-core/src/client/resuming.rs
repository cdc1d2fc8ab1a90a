//! A session's resumed requests: what became of a call that this client or another one gave up?

use crate::{
    client::{
        call::Waiting,
        io::Completed,
        outcome::{NotResumed, RequestError},
        resumes::{Resumed, ToSend},
        session::{Session, to_u32, to_usize},
        ticket::Ticket,
    },
    model::{
        message::{Outcome, Rejected, Rejection, Reply, Request},
        operation::Operation,
        time::Instant,
        types::{Epoch, ReplicaId, RequestNumber},
    },
};

impl Session {
    /// Asks again what an earlier call asked for, under its session and its number: the group
    /// executes it if it has not yet, and answers what it answered then if it has.
    ///
    /// What cannot be asked stays as unknown as it was, so no error of this says otherwise.
    pub(crate) fn on_resume(&mut self, now: Instant, waiting: Waiting, ticket: Ticket) {
        if let Err(reason) = self.require_resumable(&ticket) {
            let ticket = Box::new(ticket);
            return self.outbox.fail(waiting, RequestError::NotResumed { reason, ticket });
        }
        if ticket.epoch() < self.outbox.epoch() {
            let ticket = Box::new(ticket);
            return self.outbox.fail(waiting, RequestError::ClientEvicted { ticket });
        }
        self.expiry_at = self.expiry_at.min(waiting.deadline);
        self.resumes.add(waiting, ticket);
        self.send_resumes(now);
    }

    fn require_resumable(&self, ticket: &Ticket) -> Result<(), NotResumed> {
        let bytes = self.resumes.bytes().saturating_add(ticket.operation_bytes());
        if self.closed {
            return Err(NotResumed::ShuttingDown);
        }
        if ticket.group() != self.outbox.group() {
            return Err(NotResumed::OtherGroup);
        }
        if self.resumes.len() >= to_usize(self.options.resumes_max)
            || (self.resumes.len() > 0 && bytes > self.options.queued_bytes_max)
        {
            return Err(NotResumed::Busy { waiting: to_u32(self.resumes.len()) });
        }
        Ok(())
    }

    /// Sends what was not sent or was refused, unless the group is busy.
    pub(crate) fn send_resumes(&mut self, now: Instant) {
        if self.busy.is_armed() || self.resumes.len() == 0 {
            return;
        }
        let Some(to) = self.route.target() else { return };
        let requests = self.resumes.send_unsent();
        self.send_resumed(&[to], requests);
        self.wait_for_group(now);
    }

    /// Sends everything that has no reply to `replicas`.
    pub(crate) fn resend_resumes(&mut self, replicas: &[ReplicaId]) {
        let requests = self.resumes.send_again();
        self.send_resumed(replicas, requests);
    }

    fn send_resumed(&mut self, replicas: &[ReplicaId], requests: ToSend) {
        for ((client, session, request_number), (epoch, operation)) in requests {
            let Operation { many, bytes: operation } = operation;
            let request = Request { client, session, request_number, many, operation };
            for to in replicas {
                self.outbox.resume(*to, epoch, request.clone());
            }
        }
    }

    /// What a reply says to those who hold a ticket for its request.
    pub(crate) fn on_reply_to_resumed(&mut self, now: Instant, reply: &Reply) {
        if reply.request_number == RequestNumber::ZERO || self.resumes.len() == 0 {
            return;
        }
        let op_number = reply.op_number;
        let result = match &reply.outcome {
            Outcome::Executed(bytes) => Ok(Completed { op_number, bytes: bytes.clone() }),
            Outcome::Malformed => Err(RequestError::Malformed),
            Outcome::Forgotten => Err(RequestError::ReplyForgotten),
            Outcome::Evicted => {
                let ended = self.resumes.end_session(reply.client);
                return self.evict_resumed(ended);
            }
            Outcome::Registered => return,
        };
        let answered = self.resumes.answer(reply.client, reply.request_number);
        if answered.is_empty() {
            return;
        }
        for Resumed { waiting, .. } in answered {
            self.outbox.done(waiting, result.clone());
        }
        self.made_progress(now);
        self.send_resumes(now);
    }

    /// What a rejection says to those whose ticket asks for its request.
    pub(crate) fn on_resumed_rejected(&mut self, now: Instant, rejected: &Rejected) {
        let (client, number) = (rejected.client, rejected.request_number);
        if number == RequestNumber::ZERO {
            return;
        }
        match rejected.reason {
            Rejection::Busy(limit) => {
                if self.resumes.refuse(client, number) {
                    self.pause_for(now, limit);
                }
            }
            Rejection::Evicted => {
                let ended = self.resumes.end_session(client);
                self.evict_resumed(ended);
            }
            Rejection::TooLarge { bytes, bytes_max } => {
                let reason = NotResumed::TooLarge { bytes: u64::from(bytes), bytes_max };
                for Resumed { waiting, ticket, .. } in self.resumes.stuck_at(client, number) {
                    let ticket = Box::new(ticket);
                    self.outbox.fail(waiting, RequestError::NotResumed { reason, ticket });
                }
            }
        }
    }

    /// The sessions of the epochs before `epoch` have ended.
    pub(crate) fn end_resumes_before(&mut self, epoch: Epoch) {
        let ended = self.resumes.end_before(epoch);
        self.evict_resumed(ended);
    }

    fn evict_resumed(&mut self, ended: Vec<Resumed>) {
        for Resumed { waiting, ticket, .. } in ended {
            let ticket = Box::new(ticket);
            self.outbox.fail(waiting, RequestError::ClientEvicted { ticket });
        }
    }

    pub(crate) fn expire_resumes(&mut self, now: Instant) {
        for Resumed { waiting, ticket, .. } in self.resumes.expire(now) {
            let (waited, busy, ticket) =
                (now.since(waiting.since), self.last_busy, Box::new(ticket));
            self.outbox.fail(waiting, RequestError::TimedOut { waited, busy, ticket });
        }
    }

    /// This client closes; another one can go on.
    pub(crate) fn interrupt_resumes(&mut self) {
        for Resumed { waiting, ticket, .. } in self.resumes.drain() {
            let ticket = Box::new(ticket);
            self.outbox.fail(waiting, RequestError::Interrupted { ticket });
        }
    }
}
