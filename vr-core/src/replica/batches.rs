//! Requests that came in one message, and replies that leave in one.

use crate::{
    model::{
        batch::{BATCH_BYTES_MAX, BATCHED_BYTES},
        entry::Entry,
        message::{Message, Outcome, Replied, Replies, Reply, Requests},
        operation::Summed,
        time::Now,
        types::Peer,
    },
    replica::{Replica, ignored::Ignored},
    state::status::{Role, Status},
};

impl Replica {
    /// Each is a request like any other; those that come next at the primary are placed together.
    pub(in crate::replica) fn on_requests(
        &mut self,
        now: Now,
        from: Peer,
        m: Requests,
    ) -> Result<(), Ignored> {
        let count = if self.comes_next(&m) { self.fitting(&m.operations) } else { 0 };
        let (placed, rest) = m.split_at(count);
        if count > 0 {
            self.place_run(now, from, placed);
        }
        let mut taken = Ok(());
        for request in rest.each() {
            let told = self.on_request(now, from, request);
            taken = taken.and(told);
        }
        taken
    }

    /// Whether this is the primary, and the first of the requests would be placed at once if there
    /// were room.
    fn comes_next(&self, m: &Requests) -> bool {
        let Status::Normal(Role::Primary(primary)) = &self.status else { return false };
        let nobody_waits = primary.pipeline.queued() == 0 && !primary.pipeline.has_parked();
        let known = self.admitted.get(m.client);
        primary.serving
            && nobody_waits
            && known.is_some_and(|known| known.session == m.session && known.last.next() == m.first)
    }

    /// How many of these, from the first on, there is room for in the pipeline and in the log.
    fn fitting(&self, operations: &[Summed]) -> usize {
        let Status::Normal(Role::Primary(primary)) = &self.status else { return 0 };
        if !self.has_room() {
            return 0;
        }
        let op_number = self.log.op_number();
        let prepared = op_number.since(self.commit_number);
        let logged = op_number.since(self.log.base().op_number);
        let left = u64::from(self.config.pipeline_ops_max).saturating_sub(prepared);
        let left = left.min(self.config.log_ops_max.saturating_sub(logged));
        let bytes_max = u64::from(self.config.request_bytes_max);
        let (mut in_pipeline, mut in_log) = (primary.pipeline.bytes(), self.log.bytes());
        let fits = |summed: &&Summed| {
            let length = summed.operation().length();
            let bytes = length.saturating_add(128);
            let has_room = in_pipeline < u64::from(self.config.pipeline_bytes_max);
            in_pipeline = in_pipeline.saturating_add(bytes);
            in_log = in_log.saturating_add(bytes);
            has_room && in_log <= self.config.log_bytes_max && length <= bytes_max
        };
        let count_max = usize::try_from(left).unwrap_or(usize::MAX);
        operations.iter().take(count_max).take_while(fits).count()
    }

    /// Places requests that come next, for all of which there is room.
    fn place_run(&mut self, now: Now, from: Peer, m: Requests) {
        self.routes.set(m.client, from);
        let mut header = self.next_header(now);
        (header.client, header.session) = (m.client, m.session);
        let before = self.log.bytes();
        header.request_number = m.first;
        for operation in m.operations {
            header.op_number = self.log.op_number().next();
            header.parent = self.log.head();
            self.log.append(Entry::of_summed(header, operation));
            header.request_number = header.request_number.next();
            // Within a moment the clock only counts on.
            header.time = header.time.saturating_add(1);
        }
        // Of requests of one client the last says all.
        self.appended(now, before);
    }

    /// Answers the clients, each with as few messages as there is room in a frame.
    pub(in crate::replica) fn reply_all(&mut self, replies: Vec<Reply>) {
        let bytes_max = u64::from(self.config.request_bytes_max.min(BATCH_BYTES_MAX));
        let mut replies = replies.into_iter().peekable();
        while let Some(first) = replies.next() {
            let client = first.client;
            let connection = self.routes.only_connection(client);
            let joins = |next: &Reply| next.client == client && next.outcome != Outcome::Evicted;
            let is_alone = !joins(&first) || !replies.peek().is_some_and(joins);
            let Some(to) = connection.filter(|_| !is_alone) else {
                self.reply(first);
                continue;
            };
            let mut bytes = bytes_in_batch(&first);
            let window = usize::try_from(self.config.window).unwrap_or(usize::MAX);
            let mut batch = Vec::with_capacity(window.min(replies.len().saturating_add(1)));
            batch.push(Replied::from(first));
            while let Some(next) = replies.next_if(|next| {
                joins(next) && bytes.saturating_add(bytes_in_batch(next)) <= bytes_max
            }) {
                bytes = bytes.saturating_add(bytes_in_batch(&next));
                batch.push(Replied::from(next));
            }
            self.send_client(to, Message::Replies(Replies { client, replies: batch }));
        }
    }
}

fn bytes_in_batch(reply: &Reply) -> u64 {
    reply.outcome.bytes().saturating_add(BATCHED_BYTES)
}
