//! Makes a violation small, by changes that only allow more: what still has no order shows that
//! the whole history has none.
//!
//! Each of these changes turns every order of the larger history into one of the smaller, so that
//! the smaller is never wrong by the change alone:
//!
//! * cutting the history off at a return: later calls have not been made, and those that return
//!   later need no place yet. An order of the whole, up to the last operation that must come before
//!   the cut, is an order of the beginning. All that follows is about the part up to the first
//!   return that nothing explains; what returns later keeps its outcome, as a condition for when it
//!   may have taken effect, and as long as that matters.
//! * forgetting what a call was told, or when it returned, or both: one condition less.
//! * dropping a read: the others are where they were, and what they change is the same.
//!
//! Dropping a write is none of them: it may be what a read has seen. Instead its end is forgotten,
//! so that it may take effect at any time, or never. That is tried first with calls that may even
//! take effect again and again, which is quicker. Such a call is not drawn if, without it, the rest
//! could still be explained up to the same last return: then it explains nothing that is drawn.

//!
//! If that leaves much, the history also gets a later start: a moment at which no call is under way
//! but those of unknown outcome, and the calls until then leave only one state. What follows, begun
//! in that state, has an order whenever the whole has one.

use crate::linearizability::{
    history::{Call, Return},
    model::Model,
    search::{Aim, Found, Goal, Order, Task, only_state, search},
};

/// Steps for one attempt; one that needs more counts as failed.
const STEPS_PER_ATTEMPT: u64 = 50_000;
/// Steps for all attempts together.
const STEPS_MAX: u64 = 5_000_000;
/// A violation of so many calls needs no later start.
const CALLS_FEW: usize = 5;
/// How many later starts are tried.
const STARTS_MAX: usize = 12;

/// What is left of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Everything.
    All,
    /// That it was made and that it returned.
    Return,
    /// That it was made.
    Call,
    /// Nothing; it is not needed for what is drawn.
    Nothing,
}

/// A call with its place in the whole history.
pub(crate) type Placed<'a, M> = (usize, &'a Call<<M as Model>::Operation, <M as Model>::Outcome>);

struct Shrinker<'a, M: Model> {
    model: &'a M,
    start: M::State,
    /// The calls, and their places in the whole history.
    calls: Vec<Placed<'a, M>>,
    left: Vec<Left>,
    /// The call whose return nothing explains; it keeps its end.
    last: usize,
    steps: u64,
}

/// What is left of a call, with its place in the whole history.
pub(crate) type Kept<M> = (usize, Call<<M as Model>::Operation, <M as Model>::Outcome>);

/// A small history.
pub(crate) struct Small<M: Model> {
    /// Its calls with their places in the whole one.
    pub(crate) calls: Vec<Kept<M>>,
    /// The places of calls that are over before it starts, and the state that they leave.
    pub(crate) before: Option<(Vec<usize>, M::State)>,
    /// How many other calls are not in it.
    pub(crate) others: usize,
}

/// Shrinks `calls`, in which no order explains the return of the call at the place `stuck`.
pub(crate) fn shrink<M: Model>(model: &M, calls: &[Placed<'_, M>], stuck: usize) -> Small<M> {
    let is_last = |(place, _): &&(usize, _)| *place == stuck;
    let returned = calls.iter().find(is_last).and_then(|(_, call)| call.returned.as_ref());
    let end = returned.map_or(u64::MAX, |end| end.at);
    // The shortest beginning that has no order.
    let calls: Vec<_> = calls.iter().copied().filter(|(_, call)| call.called <= end).collect();
    let mut shrinker = Shrinker::new(model, model.initial(), calls, stuck);
    let starts = shrinker.starts();
    shrinker.shrink();
    let mut best = shrinker.result();
    for (over, first) in starts.into_iter().rev().take(STARTS_MAX) {
        if best.calls.len() <= CALLS_FEW {
            break;
        }
        let later = shrinker.from(over, first).filter(|later| later.calls.len() < best.calls.len());
        best = later.unwrap_or(best);
    }
    best
}

impl<'a, M: Model> Shrinker<'a, M> {
    fn new(model: &'a M, start: M::State, calls: Vec<Placed<'a, M>>, stuck: usize) -> Self {
        let left = calls.iter().map(|(_, call)| whole(call)).collect();
        let last = calls.iter().position(|(place, _)| *place == stuck).unwrap_or_default();
        Self { model, start, calls, left, last, steps: 0 }
    }

    fn shrink(&mut self) {
        self.forget_ends();
        self.forget_outcomes();
        self.forget_calls();
    }

    /// Moments at which only calls of unknown outcome are under way: the time of the last return
    /// before, and the call that returns first afterwards.
    fn starts(&self) -> Vec<(u64, usize)> {
        let ends = self.calls.iter().enumerate();
        let mut returns: Vec<(u64, usize, u64)> = ends
            .filter_map(|(at, (_, call))| Some((call.returned.as_ref()?.at, at, call.called)))
            .collect();
        returns.sort_unstable();
        let mut starts = Vec::new();
        for (number, pair) in returns.windows(2).enumerate() {
            let [(over, ..), (_, first, _)] = pair else { continue };
            let mut later = returns.iter().skip(number + 1);
            if later.all(|(_, _, called)| called > over) {
                starts.push((*over, *first));
            }
        }
        starts
    }

    /// What is left of the calls after the moment `over`, if the ones before leave one state.
    fn from(&self, over: u64, first: usize) -> Option<Small<M>> {
        let aim = Aim { steps_max: STEPS_PER_ATTEMPT, goal: Goal::Before(first), again: false };
        let all: Vec<Left> = self.calls.iter().map(|(_, call)| whole(call)).collect();
        let (state, _) = only_state(self.model, &self.tasks(&all), aim);
        let state = state?;
        let is_over = |call: &Call<_, _>| call.returned.as_ref().is_some_and(|r| r.at <= over);
        let (before, after): (Vec<_>, Vec<_>) =
            self.calls.iter().copied().partition(|(_, call)| is_over(call));
        let (stuck, _) = self.calls.get(self.last)?;
        let mut later = Shrinker::new(self.model, state.clone(), after, *stuck);
        let left = later.left.clone();
        if !later.is_stuck(&left) {
            return None;
        }
        later.shrink();
        let before = before.into_iter().map(|(place, _)| place).collect();
        Some(Small { before: Some((before, state)), ..later.result() })
    }
}

const fn whole<O, R>(call: &Call<O, R>) -> Left {
    if call.returned.is_some() { Left::All } else { Left::Call }
}

impl<M: Model> Shrinker<'_, M> {
    fn tasks(&self, left: &[Left]) -> Vec<Task<'_, M::Operation, M::Outcome>> {
        let tasks = self.calls.iter().zip(left).filter_map(|((_, call), left)| {
            let returned = call.returned.as_ref();
            let (returned, outcome) = match left {
                Left::All => {
                    (returned.map(|end| end.at), returned.and_then(|e| e.outcome.as_ref()))
                }
                Left::Return => (returned.map(|end| end.at), None),
                Left::Call => (None, None),
                Left::Nothing => return None,
            };
            Some(Task { operation: &call.operation, called: call.called, returned, outcome })
        });
        tasks.collect()
    }

    fn search(&mut self, left: &[Left], goal: fn(usize) -> Goal, again: bool) -> Option<Found> {
        if self.steps > STEPS_MAX {
            return None;
        }
        let before_last = left.iter().take(self.last);
        let last = before_last.filter(|left| **left != Left::Nothing).count();
        let aim = Aim { steps_max: STEPS_PER_ATTEMPT, goal: goal(last), again };
        let (found, steps) = search(self.model, self.start.clone(), &self.tasks(left), aim);
        self.steps += steps;
        Some(found)
    }

    /// Whether nothing explains the last return.
    fn is_stuck(&mut self, left: &[Left]) -> bool {
        [true, false]
            .into_iter()
            .any(|again| matches!(self.search(left, Goal::Through, again), Some(Found::Stuck(_))))
    }

    /// An order that explains all before the last return.
    fn order_before(&mut self, left: &[Left]) -> Option<Order> {
        match self.search(left, Goal::Before, false) {
            Some(Found::Order(order)) => Some(order),
            Some(Found::Stuck(_) | Found::Spent) | None => None,
        }
    }

    /// Leaves of these calls only `less`, if nothing explains the rest either.
    fn attempt(&mut self, calls: &[usize], less: Left) -> bool {
        let mut left = self.left.clone();
        for call in calls {
            if let Some(left) = left.get_mut(*call) {
                *left = less;
            }
        }
        let is_stuck = self.is_stuck(&left);
        if is_stuck {
            self.left = left;
        }
        is_stuck
    }

    fn those_with(&self, wanted: impl Fn(Left) -> bool) -> Vec<usize> {
        let numbered = self.left.iter().enumerate();
        let those = numbered.filter(|(call, left)| *call != self.last && wanted(**left));
        those.map(|(call, _)| call).collect()
    }

    /// Many at a time first, then fewer; again and again until no single one can be forgotten.
    fn lessen(&mut self, from: impl Fn(Left) -> bool, less: Left) {
        let mut size = self.those_with(&from).len().div_ceil(2);
        while size > 0 {
            let mut changed = false;
            for chunk in self.those_with(&from).chunks(size) {
                changed |= self.attempt(chunk, less);
            }
            if size > 1 || !changed {
                size /= 2;
            }
        }
    }

    fn forget_ends(&mut self) {
        self.lessen(|left| matches!(left, Left::All | Left::Return), Left::Call);
    }

    fn forget_outcomes(&mut self) {
        self.lessen(|left| left == Left::All, Left::Return);
        // With less known, ends may have become superfluous.
        self.forget_ends();
    }

    /// Keeps of the calls without an end only those that something drawn needs.
    fn forget_calls(&mut self) {
        let left = self.left.clone();
        let Some(order) = self.order_before(&left) else { return };
        for (call, left) in self.left.iter_mut().enumerate() {
            if *left == Left::Call && !order.iter().any(|(used, _)| *used == call) {
                *left = Left::Nothing;
            }
        }
        for call in self.those_with(|left| left == Left::Call) {
            let mut left = self.left.clone();
            if let Some(left) = left.get_mut(call) {
                *left = Left::Nothing;
            }
            if self.order_before(&left).is_some() {
                self.left = left;
            }
        }
    }

    fn result(&self) -> Small<M> {
        let kept = self.calls.iter().zip(&self.left).filter(|(_, left)| **left != Left::Nothing);
        let kept = kept.map(|((place, call), left)| {
            let mut call = (*call).clone();
            call.returned = call.returned.filter(|_| *left != Left::Call);
            if let (Left::Return, Some(Return { outcome, .. })) = (left, &mut call.returned) {
                *outcome = None;
            }
            (*place, call)
        });
        let calls: Vec<_> = kept.collect();
        Small { others: self.calls.len() - calls.len(), calls, before: None }
    }
}
