//! What clients asked, when, and what they were told.

/// A call of a client, from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<O, R> {
    /// Who called. Calls of one client may overlap, as several callers can share it.
    pub client: u64,
    /// What was asked for.
    pub operation: O,
    /// When the call was made; any unit, the same for the whole history.
    pub called: u64,
    /// When it returned; `None` if it never did or failed without saying what became of the
    /// operation. Such an operation may take effect at any time after its call, or never.
    pub returned: Option<Return<R>>,
}

/// The end of a call whose operation was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return<R> {
    /// When the call returned.
    pub at: u64,
    /// What the client was told; `None` if only that the operation was executed.
    pub outcome: Option<R>,
}

/// Why something is not a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// A call returns before it is made.
    #[error("call {call} returns at {returned}, before it is made at {called}")]
    ReturnsBeforeItsCall {
        /// The call's place in the history, from 0.
        call: usize,
        /// When it is made.
        called: u64,
        /// When it returns.
        returned: u64,
    },
    /// A call ends a second time.
    #[error("call {call} has ended already")]
    EndedTwice {
        /// The call's place in the recording, from 0.
        call: usize,
    },
    /// A call ends that was never made.
    #[error("there is no call {call}")]
    NoSuchCall {
        /// The number that was given.
        call: usize,
    },
}

/// Calls of concurrent clients.
///
/// One call comes before another if it returns *before* the other is made; if both happen at the
/// same time, the calls overlap. A call whose operation surely was not executed has no place in a
/// history: leave it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<O, R> {
    calls: Vec<Call<O, R>>,
}

impl<O, R> Default for History<O, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O, R> History<O, R> {
    /// A history without calls.
    #[must_use]
    pub const fn new() -> Self {
        Self { calls: Vec::new() }
    }

    /// Adds a call; calls may be added in any order.
    ///
    /// # Errors
    /// [`HistoryError::ReturnsBeforeItsCall`]: nothing was added.
    pub fn push(&mut self, call: Call<O, R>) -> Result<(), HistoryError> {
        if let Some(returned) = call.returned.as_ref().filter(|end| end.at < call.called) {
            return Err(HistoryError::ReturnsBeforeItsCall {
                call: self.calls.len(),
                called: call.called,
                returned: returned.at,
            });
        }
        self.calls.push(call);
        Ok(())
    }

    /// Calls of another history, whose ends are where they should be.
    pub(crate) const fn of_checked(calls: Vec<Call<O, R>>) -> Self {
        Self { calls }
    }

    /// The calls, in the order in which they were added.
    #[must_use]
    pub fn calls(&self) -> &[Call<O, R>] {
        &self.calls
    }

    /// The calls, for changing operations and outcomes.
    pub fn outcomes_mut(&mut self) -> impl Iterator<Item = (&O, &mut Option<R>)> {
        let calls = self.calls.iter_mut();
        calls.filter_map(|call| Some((&call.operation, &mut call.returned.as_mut()?.outcome)))
    }

    /// The same calls in other words.
    #[must_use]
    pub fn translated<P, T>(
        self,
        operation: impl Fn(O) -> P,
        outcome: impl Fn(R) -> T,
    ) -> History<P, T> {
        let calls = self.calls.into_iter().map(|call| Call {
            client: call.client,
            operation: operation(call.operation),
            called: call.called,
            returned: call
                .returned
                .map(|end| Return { at: end.at, outcome: end.outcome.map(&outcome) }),
        });
        History { calls: calls.collect() }
    }
}

/// Names a call of a [`Recording`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallNumber(usize);

/// A history that is being made: each beginning and each end gets the next moment as its time.
///
/// Callers on several threads share it behind a lock.
///
/// ```
/// use vr_sim::linearizability::{check, history::Recording, register::{Register, RegisterOp}};
///
/// let mut recording = Recording::new();
/// let write = recording.begin(1, RegisterOp::Write(5));
/// let read = recording.begin(2, RegisterOp::Read);
/// recording.returned(read, Some(5))?;
/// recording.returned(write, None)?;
/// check(&Register::default(), &recording.into_history()).assert_ok();
/// # Ok::<(), vr_sim::linearizability::history::HistoryError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Recording<O, R> {
    calls: Vec<Slot<O, R>>,
    moment: u64,
}

#[derive(Clone, Debug)]
struct Slot<O, R> {
    call: Call<O, R>,
    refused: bool,
}

impl<O, R> Default for Recording<O, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O, R> Recording<O, R> {
    /// A recording without calls.
    #[must_use]
    pub const fn new() -> Self {
        Self { calls: Vec::new(), moment: 0 }
    }

    const fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// A call is made. If nothing more is said of it, its outcome is unknown.
    pub fn begin(&mut self, client: u64, operation: O) -> CallNumber {
        let called = self.next_moment();
        let call = Call { client, operation, called, returned: None };
        self.calls.push(Slot { call, refused: false });
        CallNumber(self.calls.len() - 1)
    }

    fn open(&mut self, CallNumber(call): CallNumber) -> Result<&mut Slot<O, R>, HistoryError> {
        let slot = self.calls.get_mut(call).ok_or(HistoryError::NoSuchCall { call })?;
        if slot.refused || slot.call.returned.is_some() {
            return Err(HistoryError::EndedTwice { call });
        }
        Ok(slot)
    }

    /// A call returns with an outcome.
    ///
    /// # Errors
    /// [`HistoryError`] if it has ended already, or belongs to another recording.
    pub fn returned(&mut self, call: CallNumber, outcome: R) -> Result<(), HistoryError> {
        let at = self.next_moment();
        self.open(call)?.call.returned = Some(Return { at, outcome: Some(outcome) });
        Ok(())
    }

    /// A call fails in a way that says that its operation was not executed and never will be.
    ///
    /// # Errors
    /// As [`returned`](Self::returned).
    pub fn refused(&mut self, call: CallNumber) -> Result<(), HistoryError> {
        self.open(call)?.refused = true;
        Ok(())
    }

    /// What was recorded; calls that have not returned are of unknown outcome.
    #[must_use]
    pub fn into_history(self) -> History<O, R> {
        let kept = self.calls.into_iter().filter(|slot| !slot.refused);
        History { calls: kept.map(|slot| slot.call).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_returns_before_it_is_made_is_refused() {
        let mut history = History::new();
        let returned = Some(Return { at: 4, outcome: Some(()) });
        let error = history.push(Call { client: 0, operation: "w", called: 5, returned });
        assert_eq!(error.unwrap_err().to_string(), "call 0 returns at 4, before it is made at 5");
        assert!(history.calls().is_empty());
    }

    #[test]
    fn a_recorded_call_ends_once() {
        let mut recording = Recording::new();
        let (one, other) = (recording.begin(0, "one"), recording.begin(0, "other"));
        recording.begin(0, "open");
        recording.returned(one, 1).unwrap();
        recording.refused(other).unwrap();
        assert_eq!(recording.refused(one), Err(HistoryError::EndedTwice { call: 0 }));
        assert_eq!(recording.returned(other, 2), Err(HistoryError::EndedTwice { call: 1 }));
        let strange = CallNumber(9);
        assert_eq!(recording.returned(strange, 2), Err(HistoryError::NoSuchCall { call: 9 }));
        let history = recording.into_history();
        let kept: Vec<_> = history.calls().iter().map(|call| call.operation).collect();
        assert_eq!(kept, ["one", "open"]);
    }
}
