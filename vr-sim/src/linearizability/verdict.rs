//! What the checker says about a history.

use core::fmt;
use std::collections::BTreeSet;

use crate::linearizability::history::History;

/// Whether one order explains a history. Only [`Linearizable`](Self::Linearizable) is a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a verdict that nobody looks at shows nothing"]
pub enum Verdict<O, R> {
    /// The calls could have happened one after the other.
    Linearizable {
        /// Such an order: places in the history. Calls of unknown outcome that it does without are
        /// not in it.
        order: Vec<usize>,
    },
    /// No order explains what the clients were told.
    Violation(Violation<O, R>),
    /// The budget was spent before an answer was found.
    Unknown {
        /// How many applications of operations were tried.
        steps: u64,
        /// How many calls the part of the history has that was too hard.
        calls: usize,
        /// The keys of that part; none if the history was not divided.
        keys: BTreeSet<String>,
    },
}

/// A small history that shows why a larger one has no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation<O, R> {
    /// What is left: no call can be left out of it, forgotten the end of, or forgotten the outcome
    /// of (within the budget). Every order of the whole history would give one of this.
    pub history: History<O, R>,
    /// For each call of it, its place in the whole history.
    pub places: Vec<usize>,
    /// The places of calls that are over before the small history starts; it starts in the only
    /// state that they can leave. If there are none, it starts in the first state.
    pub before: Vec<usize>,
    /// That state, if the model has words for it.
    pub state: Option<String>,
    /// The place in the whole history of the call whose return is the first that nothing explains.
    pub last: usize,
    /// The keys that the calls are about; none if the history was not divided.
    pub keys: BTreeSet<String>,
    /// How many more calls on these keys were made until then. They may take effect at any time
    /// after their calls, or never: that does not help.
    pub others: usize,
    /// The history as a text of at most 100 columns.
    pub drawing: String,
}

impl<O, R> Verdict<O, R> {
    /// Whether an order was found.
    #[must_use]
    pub const fn is_linearizable(&self) -> bool {
        matches!(self, Self::Linearizable { .. })
    }

    /// Why this is no pass, in words and with a drawing; `None` if it is one.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        (!self.is_linearizable()).then(|| self.to_string())
    }

    /// Requires that an order was found.
    ///
    /// # Panics
    /// When there is none, with the drawing, and when the budget was spent.
    #[track_caller]
    pub fn assert_ok(&self) {
        if let Some(problem) = self.problem() {
            panic!("{problem}");
        }
    }
}

impl<O, R> fmt::Display for Verdict<O, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable { order } => {
                write!(f, "linearizable: one order explains {} calls", order.len())
            }
            Self::Violation(violation) => violation.fmt(f),
            Self::Unknown { steps, calls, keys } => write!(
                f,
                "unknown: {steps} steps did not decide whether the {calls} calls{} are \
                 linearizable; this is no pass: give the checker more steps, or record shorter \
                 histories",
                On(keys)
            ),
        }
    }
}

impl<O, R> fmt::Display for Violation<O, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not linearizable: no order explains these calls{}", On(&self.keys))?;
        if !self.before.is_empty() {
            let state = self.state.as_deref().unwrap_or("there is only one state possible");
            write!(f, "\n\nafter {} earlier calls {state}:", self.before.len())?;
        }
        write!(f, "\n\n{}", self.drawing)?;
        if self.others > 0 {
            write!(
                f,
                "\n{} more calls were made until then; none of them explains it, even if each took \
                 effect at any time after it was made, or never",
                self.others
            )?;
        }
        Ok(())
    }
}

/// Keys, as a part of a sentence.
struct On<'a>(&'a BTreeSet<String>);

impl fmt::Display for On<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys = self.0.iter();
        let Some(first) = keys.next() else { return Ok(()) };
        write!(f, " on {first}")?;
        keys.try_for_each(|key| write!(f, ", {key}"))
    }
}
