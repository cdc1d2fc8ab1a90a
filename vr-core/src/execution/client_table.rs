//! Who has a session and what became of its last requests: what makes execution exactly once.

use std::{
    collections::VecDeque,
    io::{Read, Write},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    execution::{use_order::UseOrder, work::Evicted},
    model::{
        by_client::ByClient,
        checkpoint::OpenSession,
        entry::EntryHeader,
        message::{Outcome, Reply},
        types::{ClientId, Nonce, OpNumber, RequestNumber},
    },
    ports::state_machine::{SnapshotError, SnapshotReader, SnapshotWriter},
};

/// Version of the table's bytes in a snapshot.
const TABLE_VERSION: u16 = 1;

/// Per client: its session, and the outcomes of its last requests.
///
/// The table is part of the replicated state: it changes only by executing entries in log order,
/// so it is the same on every replica that has executed as much with the same window.
///
/// Invariants: per session at most `window` outcomes, those of its highest executed request
/// numbers, without a gap.
///
/// # Source
/// VRR §4, Fig. 2 (client-table); departs from it by a window of requests per client and by
/// sessions that are opened through the log (PROTOCOL.md "Client sessions").
#[derive(Clone, Debug)]
pub struct ClientTable {
    sessions: ByClient<Session>,
    /// Follows from the sessions.
    use_order: UseOrder,
    /// Outcomes kept per client.
    window: usize,
}

impl PartialEq for ClientTable {
    fn eq(&self, other: &Self) -> bool {
        let Self { sessions, use_order: _, window } = other;
        (&self.sessions, self.window) == (sessions, *window)
    }
}

impl Eq for ClientTable {}

/// What is known of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    /// The op that registered the client.
    session: OpNumber,
    /// What the registration carried, so that a repeated one is recognised.
    nonce: Nonce,
    /// The highest executed request number; 0 for none.
    done: RequestNumber,
    /// What became of the requests up to and including `done`, the last one at the back.
    outcomes: VecDeque<Done>,
}

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    op_number: OpNumber,
    outcome: Outcome,
}

/// What is to be done with a request that the log has reached.
#[derive(Debug)]
pub enum Turn<'a> {
    /// It comes next for its client: execute it and [store](Slot::store) the outcome.
    Next(Slot<'a>),
    /// It was executed before: nothing happens. The stored reply, or that it is forgotten.
    Done(Option<Reply>),
    /// The client has no such session: nothing happens, and the client is told so.
    Evicted,
    /// Requests in front of it were never executed, which admission in order rules out: nothing
    /// happens.
    Early {
        /// The highest executed request number.
        done: RequestNumber,
    },
}

/// The place in the table for the outcome of the request that is being executed, and of those that
/// come next in the same session.
#[derive(Debug)]
pub struct Slot<'a> {
    client: ClientId,
    session: &'a mut Session,
    use_order: &'a mut UseOrder,
    window: usize,
}

impl ClientTable {
    /// A table without sessions, which will have `window` outcomes each.
    #[must_use]
    pub fn new(window: u32) -> Self {
        Self {
            sessions: ByClient::default(),
            use_order: UseOrder::default(),
            window: usize::try_from(window).unwrap_or(usize::MAX),
        }
    }

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Closes all sessions.
    pub fn clear(&mut self) {
        self.sessions = ByClient::default();
        self.use_order = UseOrder::default();
    }

    /// The open sessions, in order of their clients.
    pub fn open_sessions(&self) -> impl Iterator<Item = OpenSession> + '_ {
        self.sessions.sorted().into_iter().map(|(client, open)| {
            let Session { session, nonce, done, outcomes: _ } = open;
            OpenSession { client, session: *session, nonce: *nonce, done: *done }
        })
    }

    /// Opens a session for `client`, whose registration is the entry at `op_number`.
    ///
    /// A repeated registration finds the session it opened the first time. One with another nonce
    /// comes from somebody who uses a client id a second time: the open session stays as it is, and
    /// the newcomer is told that it has none. A new session is one of `sessions_max`; for its place
    /// those are closed whose last entry was executed longest ago, which are the same ones on
    /// every replica.
    pub fn register(
        &mut self,
        client: ClientId,
        nonce: Nonce,
        op_number: OpNumber,
        sessions_max: u64,
    ) -> (Reply, Vec<Evicted>) {
        let mut evicted = Vec::new();
        let (session, outcome) = match self.sessions.get(client) {
            Some(open) if open.nonce == nonce => (open.session, Outcome::Registered),
            Some(_) => (op_number, Outcome::Evicted),
            None => {
                let kept = usize::try_from(sessions_max.saturating_sub(1)).unwrap_or(usize::MAX);
                while self.sessions.len() > kept {
                    let Some(closed) = self.evict(op_number) else { break };
                    evicted.push(closed);
                }
                self.sessions.insert(client, Session::new(op_number, nonce));
                self.use_order.used(op_number, client);
                (op_number, Outcome::Registered)
            }
        };
        let request_number = RequestNumber::ZERO;
        (Reply { client, request_number, op_number: session, outcome }, evicted)
    }

    /// Closes the session that was used longest ago, because of the entry at `by`.
    fn evict(&mut self, by: OpNumber) -> Option<Evicted> {
        let sessions = &self.sessions;
        let last_use = |client| sessions.get(client).map(Session::last_use);
        let client = self.use_order.take_oldest(last_use)?;
        let closed = self.sessions.remove(client)?;
        Some(Evicted { by, client, session: closed.session })
    }

    /// What is to be done with request `number` of `client`, made in `session`.
    ///
    /// A client's requests are executed strictly in the order of their numbers, each once; a
    /// request can stand in the log twice, because views change while clients ask again.
    pub fn turn(&mut self, client: ClientId, session: OpNumber, number: RequestNumber) -> Turn<'_> {
        let window = self.window;
        let sessions = &self.sessions;
        self.use_order.tidy(sessions.len(), |client| sessions.get(client).map(Session::last_use));
        match self.sessions.get_mut(client) {
            Some(open) if open.session == session => {
                if open.comes_next(number) {
                    Turn::Next(Slot {
                        client,
                        session: open,
                        use_order: &mut self.use_order,
                        window,
                    })
                } else if number <= open.done {
                    Turn::Done(open.reply_to(client, number))
                } else {
                    Turn::Early { done: open.done }
                }
            }
            Some(_) | None => Turn::Evicted,
        }
    }

    /// The stored reply to request `number` of `client`, or to its registration if that is 0.
    ///
    /// `None` when the client has no session, or the request was not executed. A reply that has left
    /// the window was acknowledged by the client; who else asks is told that it is forgotten.
    #[must_use]
    pub fn stored_reply(&self, client: ClientId, number: RequestNumber) -> Option<Reply> {
        let open = self.sessions.get(client)?;
        if number == RequestNumber::ZERO {
            let outcome = Outcome::Registered;
            return Some(Reply {
                client,
                request_number: number,
                op_number: open.session,
                outcome,
            });
        }
        open.reply_to(client, number)
    }

    /// Writes the table to `out`, record by record; behind it `out` can take something else.
    ///
    /// # Errors
    /// [`SnapshotError`] when `out` cannot be written.
    pub fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        out.write_all(&TABLE_VERSION.to_le_bytes())?;
        let sessions = u32::try_from(self.sessions.len()).map_err(|_| SnapshotError::Unreadable)?;
        out.write_all(&sessions.to_le_bytes())?;
        for (client, open) in self.sessions.sorted() {
            let outcomes =
                u32::try_from(open.outcomes.len()).map_err(|_| SnapshotError::Unreadable)?;
            let (session, nonce, done) = (open.session, open.nonce, open.done);
            write_record(out, &SessionRecord { client, session, nonce, done, outcomes })?;
            for outcome in &open.outcomes {
                write_record(out, outcome)?;
            }
        }
        Ok(())
    }

    /// Replaces all sessions by those that [`snapshot`](Self::snapshot) wrote, and reads nothing
    /// behind them. The limits stay; the table is as it was before when this fails.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] when `from` cannot be read or ends early,
    /// [`SnapshotError::Unreadable`] when the bytes are not a table.
    pub fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        let mut version = [0; 2];
        from.read_exact(&mut version)?;
        if u16::from_le_bytes(version) != TABLE_VERSION {
            return Err(SnapshotError::Unreadable);
        }
        let mut sessions = ByClient::default();
        let (mut last, mut uses) = (None, Vec::new());
        for _ in 0..read_length(from)? {
            let record: SessionRecord = read_record(from)?;
            let mut open = Session::new(record.session, record.nonce);
            open.done = record.done;
            for _ in 0..record.outcomes {
                open.outcomes.push_back(read_record(from)?);
            }
            let ascending = last.replace(record.client).is_none_or(|last| last < record.client);
            if !ascending || u64::from(record.outcomes) > record.done.0 {
                return Err(SnapshotError::Unreadable);
            }
            uses.push((open.last_use(), record.client));
            sessions.insert(record.client, open);
        }
        self.use_order = uses.into_iter().collect();
        self.sessions = sessions;
        Ok(())
    }
}

impl Session {
    const fn new(session: OpNumber, nonce: Nonce) -> Self {
        Self { session, nonce, done: RequestNumber::ZERO, outcomes: VecDeque::new() }
    }

    /// Whether request `number` is the one that is executed next; none is behind the highest number.
    fn comes_next(&self, number: RequestNumber) -> bool {
        number > self.done && number == self.done.next()
    }

    /// The last entry of the client that was executed.
    fn last_use(&self) -> OpNumber {
        self.outcomes.back().map_or(self.session, |done| done.op_number)
    }

    fn reply_to(&self, client: ClientId, number: RequestNumber) -> Option<Reply> {
        if number == RequestNumber::ZERO || number > self.done {
            return None;
        }
        let behind = usize::try_from(self.done.since(number)).unwrap_or(usize::MAX);
        let position = self.outcomes.len().checked_sub(behind.saturating_add(1));
        let kept = position.and_then(|position| self.outcomes.get(position));
        let (op_number, outcome) = kept.map_or((OpNumber::ZERO, Outcome::Forgotten), |done| {
            (done.op_number, done.outcome.clone())
        });
        Some(Reply { client, request_number: number, op_number, outcome })
    }
}

impl Slot<'_> {
    /// Whether an entry is for what comes next in this session.
    #[must_use]
    pub fn is_for(&self, header: &EntryHeader) -> bool {
        header.kind.is_request()
            && header.client == self.client
            && header.session == self.session.session
            && self.session.comes_next(header.request_number)
    }

    /// Stores what became of the request at `op_number`; the oldest outcome leaves a full window.
    ///
    /// The bytes of a reply are kept as they are: a reply that is a slice of something larger keeps
    /// all of it in memory.
    pub fn store(&mut self, op_number: OpNumber, outcome: Outcome) {
        self.session.done = self.session.done.next();
        while self.session.outcomes.len() >= self.window.max(1) {
            self.session.outcomes.pop_front();
        }
        self.session.outcomes.push_back(Done { op_number, outcome });
        self.use_order.used(op_number, self.client);
    }
}

/// A session in a snapshot; its outcomes follow, the oldest first.
#[derive(Serialize, Deserialize)]
struct SessionRecord {
    client: ClientId,
    session: OpNumber,
    nonce: Nonce,
    done: RequestNumber,
    outcomes: u32,
}

/// Writes one value behind its length, so that a reader needs no more memory than it has bytes.
fn write_record(
    out: &mut SnapshotWriter<'_>,
    record: &impl Serialize,
) -> Result<(), SnapshotError> {
    let bytes = postcard::to_allocvec(record).map_err(|_| SnapshotError::Unreadable)?;
    let length = u32::try_from(bytes.len()).map_err(|_| SnapshotError::Unreadable)?;
    out.write_all(&length.to_le_bytes())?;
    Ok(out.write_all(&bytes)?)
}

fn read_record<T: DeserializeOwned>(from: &mut SnapshotReader<'_>) -> Result<T, SnapshotError> {
    let length = read_length(from)?;
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    match postcard::take_from_bytes(&bytes) {
        Ok((record, [])) if u32::try_from(bytes.len()) == Ok(length) => Ok(record),
        Ok(_) | Err(_) => Err(SnapshotError::Unreadable),
    }
}

fn read_length(from: &mut SnapshotReader<'_>) -> Result<u32, SnapshotError> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    Ok(u32::from_le_bytes(length))
}
