//! What concurrent clients did to a few registers, and whether one order explains it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use todc_utils::{Action, History, Specification, WGLChecker};
use vr_sim::linearizability::{
    history::{Call, History as Recording, Return},
    kv::{KvOp, KvOutcome, What},
};

/// What is done to one register; unknown results stay open until the end of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// `GET`; what it returned.
    Get(Option<i64>),
    /// `SET`.
    Set(i64),
    /// `CAS key old new`; whether it wrote, if that is known.
    Cas(i64, i64, Option<bool>),
    /// `INCR`; what it returned, if that is known.
    Incr(Option<i64>),
    /// `GETDEL`; what it returned, if that is known.
    GetDel(Option<Option<i64>>),
}

impl Did {
    /// The same in the words of the checker's model; the outcome if it is known.
    fn in_words_of_the_model(&self) -> (What, Option<KvOutcome>) {
        match self {
            Self::Get(returned) => (What::Get, Some(KvOutcome::Value(*returned))),
            Self::Set(value) => (What::Set(*value), Some(KvOutcome::Done)),
            Self::Cas(old, new, wrote) => (What::Cas(*old, *new), wrote.map(KvOutcome::Wrote)),
            Self::Incr(sum) => (What::Add(1), sum.map(|sum| KvOutcome::Value(Some(sum)))),
            Self::GetDel(returned) => (What::Take, returned.map(KvOutcome::Value)),
        }
    }
}

/// One register: a number, or nothing.
struct Register;

impl Specification for Register {
    type State = Option<i64>;
    type Operation = Did;

    fn init() -> Self::State {
        None
    }

    fn apply(did: &Did, state: &Self::State) -> (bool, Self::State) {
        match did {
            Did::Get(returned) => (returned == state, *state),
            Did::Set(value) => (true, Some(*value)),
            Did::Cas(old, new, wrote) => {
                let writes = *state == Some(*old);
                (
                    wrote.is_none_or(|wrote| wrote == writes),
                    if writes { Some(*new) } else { *state },
                )
            }
            Did::Incr(returned) => {
                let sum = state.unwrap_or(0) + 1;
                (returned.is_none_or(|returned| returned == sum), Some(sum))
            }
            Did::GetDel(returned) => (returned.is_none_or(|returned| returned == *state), None),
        }
    }
}

/// Names a call between its beginning and its end.
#[derive(Debug)]
pub(crate) struct Begun(usize);

/// Everything that clients began and ended, in the order in which it happened.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    state: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    /// Per call: on which register, and what it did; `None` if it surely did nothing.
    calls: Vec<(String, Option<Did>)>,
    /// Per call: who made it.
    clients: Vec<usize>,
    /// Beginnings (true) and ends (false) of calls.
    moments: Vec<(usize, bool)>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().unwrap()
    }

    /// A call on `register` begins; `did` is what it does if nothing is ever heard of it.
    pub(crate) fn begin(&self, client: usize, register: &str, did: Did) -> Begun {
        let mut state = self.lock();
        let call = state.calls.len();
        state.calls.push((register.to_owned(), Some(did)));
        state.clients.push(client);
        state.moments.push((call, true));
        Begun(call)
    }

    /// A call ended; `did` has its result, or is `None` if it surely was not executed.
    pub(crate) fn end(&self, begun: &Begun, did: Option<Did>) {
        let mut state = self.lock();
        state.calls[begun.0].1 = did;
        state.moments.push((begun.0, false));
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> usize {
        self.lock().calls.len()
    }

    /// The whole history, as the simulator's checker takes it.
    pub(crate) fn to_history(&self) -> Recording<KvOp, KvOutcome> {
        let state = self.lock();
        let (mut called, mut returned) = (BTreeMap::new(), BTreeMap::new());
        for (at, (call, begins)) in (0..).zip(&state.moments) {
            if *begins { &mut called } else { &mut returned }.insert(*call, at);
        }
        let mut history = Recording::new();
        for (call, (register, did)) in state.calls.iter().enumerate() {
            let Some(did) = did else { continue };
            let (what, outcome) = did.in_words_of_the_model();
            let returned = returned.get(&call).map(|at| Return { at: *at, outcome });
            let client = u64::try_from(state.clients[call]).unwrap();
            let operation = KvOp::new(register, what);
            history.push(Call { client, operation, called: called[&call], returned }).unwrap();
        }
        history
    }

    /// The registers whose history no order of the calls explains.
    pub(crate) fn not_linearizable(&self) -> Vec<String> {
        let state = self.lock();
        let mut registers: BTreeMap<&str, Vec<(usize, bool)>> = BTreeMap::new();
        for (call, begins) in &state.moments {
            let (register, did) = &state.calls[*call];
            if did.is_some() {
                registers.entry(register).or_default().push((*call, *begins));
            }
        }
        let wrong = registers.into_iter().filter(|(_, moments)| !state.is_linearizable(moments));
        wrong.map(|(register, _)| register.to_owned()).collect()
    }
}

impl Recorded {
    fn is_linearizable(&self, moments: &[(usize, bool)]) -> bool {
        let mut open: BTreeMap<usize, usize> = BTreeMap::new();
        let mut actions = Vec::new();
        for (call, begins) in moments {
            let did = self.calls[*call].1.clone().unwrap();
            if *begins {
                // Each call is a process of its own, so that one without an end blocks nobody.
                let process = actions.len();
                open.insert(*call, process);
                actions.push((process, Action::Call(did)));
            } else {
                let process = open.remove(call).unwrap();
                actions.push((process, Action::Response(did)));
            }
        }
        for (call, process) in open {
            actions.push((process, Action::Response(self.calls[call].1.clone().unwrap())));
        }
        WGLChecker::<Register>::is_linearizable(History::from_actions(actions))
    }
}

#[cfg(test)]
mod tests {
    use vr_sim::linearizability::{check, kv::KvModel};

    use super::*;

    #[test]
    fn a_read_of_what_was_overwritten_is_found() {
        let recorder = Recorder::default();
        for (did, result) in [(Did::Set(1), Did::Set(1)), (Did::Set(2), Did::Set(2))] {
            let begun = recorder.begin(0, "r", did);
            recorder.end(&begun, Some(result));
        }
        let read = recorder.begin(0, "r", Did::Get(None));
        recorder.end(&read, Some(Did::Get(Some(1))));
        assert_eq!(recorder.not_linearizable(), ["r"]);
        assert!(!check(&KvModel, &recorder.to_history()).is_linearizable());
    }

    #[test]
    fn an_unknown_increment_explains_one_step_and_not_two() {
        let seen = |value: i64| {
            let recorder = Recorder::default();
            recorder.begin(0, "r", Did::Incr(None));
            let read = recorder.begin(0, "r", Did::Get(None));
            recorder.end(&read, Some(Did::Get(Some(value))));
            let others = recorder.not_linearizable().is_empty();
            assert_eq!(check(&KvModel, &recorder.to_history()).is_linearizable(), others);
            others
        };
        assert!(seen(1));
        assert!(!seen(2));
    }

    #[test]
    fn a_refused_write_must_not_be_seen() {
        let recorder = Recorder::default();
        let refused = recorder.begin(0, "r", Did::Set(5));
        recorder.end(&refused, None);
        let read = recorder.begin(0, "r", Did::Get(None));
        recorder.end(&read, Some(Did::Get(Some(5))));
        assert_eq!(recorder.not_linearizable(), ["r"]);
    }
}
