//! Clients of a simulated group: the real one, with every call numbered and remembered.

use core::{
    fmt::{self, Debug},
    time::Duration,
};
use std::sync::{Arc, Mutex};

use vr_core::{
    CausalToken, Read, StateMachine, Ticket,
    client::{Client, outcome::RequestError},
    model::{time::Instant, types::OpNumber},
    ports::runtime::Runtime,
};

use crate::{
    actor::Actor,
    executor::lock,
    observer::{Observed, Tagged, hash_of},
    runtime::SimRuntime,
    trace::event::Event,
    witness::SharedWitness,
};

/// A state machine that can be simulated: its replies can be kept and shown.
pub trait Service:
    StateMachine<
        Operation: Clone + Debug,
        Reply: Clone + Debug + PartialEq,
        Query: Clone + Debug,
        Answer: Clone + Debug + PartialEq,
    >
{
}

impl<S> Service for S where
    S: StateMachine<
            Operation: Clone + Debug,
            Reply: Clone + Debug + PartialEq,
            Query: Clone + Debug,
            Answer: Clone + Debug + PartialEq,
        >
{
}

/// Names one call of one client; operations carry it, so that each is unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A call of a client, from its beginning to its end.
#[derive(Clone, Debug)]
pub struct Call<W, E> {
    /// The client, by the order in which clients were made.
    pub client: u64,
    /// When it was made.
    pub invoked: Instant,
    /// What was asked for.
    pub wanted: W,
    /// When it returned, and what; `None` while it is pending.
    pub ended: Option<(Instant, E)>,
    /// Where the log has it; `None` for a query, and while it is not executed anywhere.
    pub place: Option<OpNumber>,
}

/// What a call asks for.
#[derive(Clone, Debug)]
pub enum Wanted<O, Q> {
    /// To execute an operation.
    Operation(O),
    /// To answer a query.
    Query(Q, Read),
}

impl<O, Q> Wanted<O, Q> {
    const fn is_query(&self) -> bool {
        matches!(self, Self::Query(..))
    }
}

/// What a call came to.
#[derive(Clone, Debug)]
pub enum Ended<R, A> {
    /// The operation executed.
    Replied(R),
    /// The query was answered.
    Answered(A),
    /// The call failed.
    Failed(RequestError),
}

/// Who goes on with a call that failed, if it left a ticket, and with what.
fn resumer_of<C>(
    error: &RequestError,
    resumer: impl FnOnce(&RequestError) -> Option<C>,
) -> Option<(C, Ticket)> {
    let ticket = error.ticket()?.clone();
    Some((resumer(error)?, ticket))
}

/// What a call to the service `S` asks for.
pub type WantedOf<S> = Wanted<<S as StateMachine>::Operation, <S as StateMachine>::Query>;

/// What a call to the service `S` came to.
pub type EndedOf<S> = Ended<<S as StateMachine>::Reply, <S as StateMachine>::Answer>;

/// A call to the service `S`.
pub type CallOf<S> = Call<WantedOf<S>, EndedOf<S>>;

/// All calls of a run, by their id.
pub(crate) type Calls<S> = Arc<Mutex<Vec<CallOf<S>>>>;

/// A client of a simulated group. Calls begin when the group runs next; clones share the session.
pub struct SimClient<S: Service> {
    number: u64,
    client: Client<Observed<S>>,
    runtime: SimRuntime,
    calls: Calls<S>,
    witness: SharedWitness,
}

impl<S: Service> SimClient<S> {
    pub(crate) const fn new(
        number: u64,
        client: Client<Observed<S>>,
        runtime: SimRuntime,
        calls: Calls<S>,
        witness: SharedWitness,
    ) -> Self {
        Self { number, client, runtime, calls, witness }
    }

    /// The client's place in the simulation.
    #[must_use]
    pub const fn actor(&self) -> Actor {
        Actor::Client(self.number)
    }

    /// Asks the group to execute `operation`.
    pub fn request(&self, operation: S::Operation) -> CallId {
        self.ask(Wanted::Operation(operation))
    }

    /// Asks the group a linearizable query.
    pub fn query(&self, query: S::Query) -> CallId {
        self.ask(Wanted::Query(query, Read::Linearizable))
    }

    /// How far the client has seen the log.
    #[must_use]
    pub fn token(&self) -> CausalToken {
        self.client.token()
    }

    /// Asks the group a query that may be answered as `read` says; a causal one sees at least what
    /// this client has seen when it begins.
    pub fn query_with(&self, query: S::Query, read: Read) -> CallId {
        self.ask(Wanted::Query(query, read))
    }

    /// Asks the group to execute several operations as one; each has a call of its own.
    ///
    /// Not for a service under [`check`](crate::check()), which looks for one operation at each op.
    pub fn request_many(&self, operations: Vec<S::Operation>) -> Vec<CallId> {
        let wanted = operations.into_iter().map(Wanted::Operation).collect();
        self.ask_all(wanted)
    }

    /// Makes the calls that `next` wants, one behind the other with a pause before each, until it
    /// returns `None`.
    pub fn drive(
        &self,
        mut next: impl FnMut() -> Option<(Duration, WantedOf<S>)> + Send + 'static,
    ) {
        self.drive_resuming(move || next().map(|(pause, it)| (pause, vec![it])), |_| None);
    }

    /// As [`drive`](Self::drive); several operations are asked for as one, and a call that leaves
    /// a ticket goes on as long as `resumer` names a client to resume it.
    pub fn drive_resuming(
        &self,
        mut next: impl FnMut() -> Option<(Duration, Vec<WantedOf<S>>)> + Send + 'static,
        mut resumer: impl FnMut(&RequestError) -> Option<Self> + Send + 'static,
    ) {
        let this = self.clone();
        self.spawn(async move {
            while let Some((pause, wanted)) = next() {
                this.runtime.sleep_until(this.runtime.now() + pause).await;
                let calls = this.begin_all(&wanted);
                let mut ended = this.attempt(&calls, wanted).await;
                while let Err(error) = &ended
                    && let Some((by, ticket)) = resumer_of(error, &mut resumer)
                {
                    calls.iter().for_each(|call| this.note(*call, "resumed"));
                    ended = by.attempt_to_resume(ticket).await;
                }
                this.end_all(&calls, ended);
            }
        });
    }

    /// Resumes a call, which may be another client's, with the ticket that it left; it is pending
    /// until that comes to something.
    pub fn resume(&self, call: CallId, ticket: &Ticket) {
        let position = usize::try_from(call.0).unwrap_or(usize::MAX);
        if let Some(call) = lock(&self.calls).get_mut(position) {
            call.ended = None;
        }
        let (this, ticket) = (self.clone(), ticket.clone());
        self.note(call, "resumed");
        self.spawn(async move { this.end_all(&[call], this.attempt_to_resume(ticket).await) });
    }

    /// The same client, whose calls wait for `timeout`.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { client: self.client.with_timeout(timeout), ..self.clone() }
    }

    /// Asks the group for `wanted`.
    pub fn ask(&self, wanted: WantedOf<S>) -> CallId {
        let call = self.begin(wanted.clone());
        let this = self.clone();
        self.spawn(async move { this.end_all(&[call], this.attempt(&[call], vec![wanted]).await) });
        call
    }

    fn ask_all(&self, wanted: Vec<WantedOf<S>>) -> Vec<CallId> {
        let calls = self.begin_all(&wanted);
        let (this, asked) = (self.clone(), calls.clone());
        self.spawn(async move { this.end_all(&asked, this.attempt(&asked, wanted).await) });
        calls
    }

    async fn attempt(
        &self,
        calls: &[CallId],
        mut wanted: Vec<WantedOf<S>>,
    ) -> Result<Vec<EndedOf<S>>, RequestError> {
        if wanted.len() == 1
            && let Some(Wanted::Query(query, read)) = wanted.pop_if(|it| it.is_query())
        {
            let seen = |token: CausalToken| Read::Causal(token.max(self.token()));
            let read = if let Read::Causal(token) = read { seen(token) } else { read };
            return Ok(vec![Ended::Answered(self.client.query(query, read).await?)]);
        }
        let tagged = calls.iter().zip(wanted).filter_map(|(call, wanted)| match wanted {
            Wanted::Operation(operation) => Some(Tagged { tag: call.0, operation }),
            Wanted::Query(..) => None,
        });
        let mut operations: Vec<_> = tagged.collect();
        if operations.len() > 1 {
            let replies = self.client.execute_many(operations).await?;
            return Ok(replies.into_iter().map(Ended::Replied).collect());
        }
        let operation = operations.pop().expect("something is asked for");
        Ok(vec![Ended::Replied(self.client.execute(operation).await?)])
    }

    /// A ticket may go through a file, and be resumed by another process.
    async fn attempt_to_resume(&self, ticket: Ticket) -> Result<Vec<EndedOf<S>>, RequestError> {
        let ticket = Ticket::from_bytes(&ticket.to_bytes()).expect("a ticket survives its bytes");
        let replies = self.client.resume_many(ticket).await?;
        Ok(replies.into_iter().map(Ended::Replied).collect())
    }

    fn begin_all(&self, wanted: &[WantedOf<S>]) -> Vec<CallId> {
        wanted.iter().map(|wanted| self.begin(wanted.clone())).collect()
    }

    fn end_all(&self, calls: &[CallId], ended: Result<Vec<EndedOf<S>>, RequestError>) {
        if ended.as_ref().is_ok_and(|ended| ended.len() > 1) {
            let tags: Vec<u64> = calls.iter().map(|call| call.0).collect();
            lock(&self.witness).acknowledged_together(self.runtime.now(), &tags);
        }
        let ended = ended
            .unwrap_or_else(|error| calls.iter().map(|_| Ended::Failed(error.clone())).collect());
        assert_eq!(calls.len(), ended.len(), "each operation has a reply");
        calls.iter().zip(ended).for_each(|(call, ended)| self.end(*call, ended));
    }

    /// Opens the session, with an operation that no service can read.
    pub(crate) fn open_session(&self, opened: Arc<Mutex<bool>>) {
        let client = self.client.clone();
        self.spawn(async move {
            // Malformed is the answer, and that the session is open.
            drop(client.execute_raw(Vec::new()).await);
            *lock(&opened) = true;
        });
    }

    fn begin(&self, wanted: WantedOf<S>) -> CallId {
        let mut calls = lock(&self.calls);
        let id = CallId(u64::try_from(calls.len()).unwrap_or(u64::MAX));
        let invoked = self.runtime.now();
        calls.push(Call { client: self.number, invoked, wanted, ended: None, place: None });
        id
    }

    fn end(&self, call: CallId, ended: EndedOf<S>) {
        let now = self.runtime.now();
        let position = usize::try_from(call.0).unwrap_or(usize::MAX);
        let how = match &ended {
            Ended::Replied(reply) => {
                lock(&self.witness).acknowledged(now, call.0, hash_of(reply));
                "executed"
            }
            Ended::Answered(_) => "answered",
            Ended::Failed(error) => {
                lock(&self.witness).told_outcome(now, call.0, error.outcome());
                "failed"
            }
        };
        self.note(call, how);
        if let Some(call) = lock(&self.calls).get_mut(position) {
            call.ended = Some((now, ended));
        }
    }

    fn note(&self, call: CallId, how: &'static str) {
        lock(&self.witness).trace.record(self.runtime.now(), Event::Answered(call.0, how));
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn("call", Box::pin(task));
    }
}

impl<S: Service> Clone for SimClient<S> {
    fn clone(&self) -> Self {
        Self {
            number: self.number,
            client: self.client.clone(),
            runtime: self.runtime.clone(),
            calls: Arc::clone(&self.calls),
            witness: Arc::clone(&self.witness),
        }
    }
}

impl<S: Service> Debug for SimClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimClient").field("actor", &self.actor()).finish_non_exhaustive()
    }
}
