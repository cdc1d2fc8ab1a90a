//! The search for an order that explains a history: Wing and Gong's, with Lowe's memo.
//!
//! # Source
//! Wing and Gong, "Testing and verifying concurrent objects" (1993); Lowe, "Testing for
//! linearizability" (2017), whose just-in-time form this is: an operation gets its place only when
//! a call that returns needs it. Every order can be brought into that form by moving operations
//! back as far as the returns allow.
#![expect(
    clippy::indexing_slicing,
    reason = "numbers of turns, states and calls are used on the vectors that gave them"
)]

use core::{cmp::Reverse, hash::BuildHasherDefault};
use std::{
    collections::{BinaryHeap, HashMap},
    hash::DefaultHasher,
    rc::Rc,
};

use crate::linearizability::{bits::Bits, model::Model};

/// A map for looking things up; equal runs hash alike.
type Lookup<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// A call as the search sees it.
#[derive(Debug)]
pub(crate) struct Task<'a, O, R> {
    pub(crate) operation: &'a O,
    pub(crate) called: u64,
    /// `None` if the operation is optional.
    pub(crate) returned: Option<u64>,
    /// `None` if any outcome will do.
    pub(crate) outcome: Option<&'a R>,
}

impl<O, R> Clone for Task<'_, O, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O, R> Copy for Task<'_, O, R> {}

/// What is looked for, and how far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim {
    pub(crate) steps_max: u64,
    pub(crate) goal: Goal,
    /// Optional operations may take effect again and again, all together as often as there are
    /// optional ones. This finds an order in more histories and is quickly through with the rest.
    pub(crate) again: bool,
}

/// How much an order has to explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// All returns.
    All,
    /// All returns before this call's.
    Before(usize),
    /// These and this call's.
    Through(usize),
}

/// What the search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// An order.
    Order(Order),
    /// There is no order; everything up to this call's return shows it, and nothing shorter does.
    Stuck(usize),
    /// The budget is spent.
    Spent,
}

/// An order of calls, each with the call whose return it had to precede.
pub(crate) type Order = Vec<(usize, usize)>;

/// The return of a call: when it comes, the operation must have its place.
struct Turn {
    task: usize,
    /// Calls that have been made and have not returned, except reads.
    updates: Vec<usize>,
    /// The reads among them.
    reads: Vec<usize>,
    /// How many of the optional operations have been called.
    optional: usize,
}

/// A prefix of an order: it has passed the returns before `turn`.
struct Node {
    turn: usize,
    state: usize,
    /// Calls that have their place and have not returned, by slot.
    placed: Bits,
    /// Optional operations that have their place.
    used: Bits,
    used_count: u32,
    parent: Option<usize>,
    /// The calls that got their places behind the parent's.
    added: Vec<usize>,
}

/// Nodes that are to be looked at: the one that came furthest, of these the one with the fewest
/// optional operations, of these the latest. The last field tells whether to try the optional ones.
type Waiting = BinaryHeap<(usize, Reverse<u32>, usize, bool)>;

struct Search<'a, M: Model> {
    model: &'a M,
    tasks: &'a [Task<'a, M::Operation, M::Outcome>],
    turns: Vec<Turn>,
    /// For calls that return, a number that no overlapping call has; for optional ones, their rank.
    slots: Vec<usize>,
    /// Optional operations, those that do the same together, in the order of their calls.
    classes: Vec<Vec<usize>>,
    states: Vec<Rc<M::State>>,
    state_numbers: Lookup<Rc<M::State>, usize>,
    transitions: Lookup<(usize, usize), Option<usize>>,
    nodes: Vec<Node>,
    waiting: Waiting,
    /// For each turn, state and set of placed calls: the optional operations that it took to get
    /// there; no set contains another.
    memo: Lookup<(usize, usize, Bits), Vec<Bits>>,
    furthest: usize,
    /// The turn that ends the search.
    goal: usize,
    /// The state in which it was reached.
    reached: usize,
    again: bool,
    steps: u64,
}

/// Looks for an order of `tasks` that the model explains from the state `start` on; also returns how
/// many steps it took.
pub(crate) fn search<M: Model>(
    model: &M,
    start: M::State,
    tasks: &[Task<'_, M::Operation, M::Outcome>],
    aim: Aim,
) -> (Found, u64) {
    let mut search = Search::new(model, tasks, aim);
    search.begin(start);
    let found = search.run(aim.steps_max);
    (found, search.steps)
}

/// The only state in which the goal can be reached; `None` if there are several or none, or the
/// budget was spent.
pub(crate) fn only_state<M: Model>(
    model: &M,
    tasks: &[Task<'_, M::Operation, M::Outcome>],
    aim: Aim,
) -> (Option<M::State>, u64) {
    let mut search = Search::new(model, tasks, aim);
    search.begin(model.initial());
    let mut only = None;
    while let Found::Order(_) = search.run(aim.steps_max) {
        let reached = search.reached;
        if only.is_some_and(|only| only != reached) {
            return (None, search.steps);
        }
        only = Some(reached);
    }
    let exhausted = search.waiting.is_empty();
    let state = only.filter(|_| exhausted).map(|state| search.states[state].as_ref().clone());
    (state, search.steps)
}

impl<M: Model> Search<'_, M> {
    fn begin(&mut self, start: M::State) {
        let state = self.number_of(start);
        self.admit(Node {
            turn: 0,
            state,
            placed: Bits::default(),
            used: Bits::default(),
            used_count: 0,
            parent: None,
            added: Vec::new(),
        });
    }
}

impl<'a, M: Model> Search<'a, M> {
    fn run(&mut self, steps_max: u64) -> Found {
        while let Some((turn, used_count, node, optional)) = self.waiting.pop() {
            if turn == self.goal {
                self.reached = self.nodes[node].state;
                return Found::Order(self.order_of(node));
            }
            if self.steps >= steps_max {
                self.waiting.push((turn, used_count, node, optional));
                return Found::Spent;
            }
            if optional {
                self.try_optional(node);
            } else {
                self.try_updates(node);
            }
        }
        let last = self.turns.len().saturating_sub(1);
        Found::Stuck(self.turns[self.furthest.min(last)].task)
    }

    fn new(model: &'a M, tasks: &'a [Task<'a, M::Operation, M::Outcome>], aim: Aim) -> Self {
        let mut search = Self {
            model,
            tasks,
            turns: Vec::new(),
            slots: vec![0; tasks.len()],
            classes: Vec::new(),
            states: Vec::new(),
            state_numbers: Lookup::default(),
            transitions: Lookup::default(),
            nodes: Vec::new(),
            waiting: Waiting::new(),
            memo: Lookup::default(),
            furthest: 0,
            goal: 0,
            reached: 0,
            again: aim.again,
            steps: 0,
        };
        search.sweep();
        let turn_of = |task| search.turns.iter().position(|turn| turn.task == task);
        search.goal = match aim.goal {
            Goal::All => None,
            Goal::Before(task) => turn_of(task),
            Goal::Through(task) => turn_of(task).map(|turn| turn + 1),
        }
        .unwrap_or(search.turns.len());
        search
    }

    /// Goes through the history once: which calls are under way at each return.
    fn sweep(&mut self) {
        let calls = self.tasks.iter().enumerate().map(|(at, task)| (task.called, false, at));
        let returns = self.tasks.iter().enumerate();
        let returns = returns.filter_map(|(at, task)| Some((task.returned?, true, at)));
        // At one time calls come first: what touches overlaps.
        let mut moments: Vec<(u64, bool, usize)> = calls.chain(returns).collect();
        moments.sort_unstable();
        let mut under_way: Vec<Option<usize>> = Vec::new();
        let mut optional = 0;
        for (_, returns, task) in moments {
            let is_read = self.is_read(task);
            if returns {
                let running = under_way.iter().flatten().copied();
                let (reads, updates) = running.partition(|other| self.is_read(*other));
                self.turns.push(Turn { task, updates, reads, optional });
                under_way[self.slots[task]] = None;
            } else if self.tasks[task].returned.is_some() {
                let free = under_way.iter().position(Option::is_none);
                let slot = free.unwrap_or(under_way.len());
                under_way.resize(under_way.len().max(slot + 1), None);
                under_way[slot] = Some(task);
                self.slots[task] = slot;
            } else if !is_read {
                self.slots[task] = optional;
                optional += 1;
                self.classify(task);
            }
        }
    }

    fn is_read(&self, task: usize) -> bool {
        let task = &self.tasks[task];
        self.model.is_read(task.operation, task.outcome)
    }

    fn classify(&mut self, task: usize) {
        let operation = self.tasks[task].operation;
        let (model, tasks) = (self.model, self.tasks);
        let alike = |class: &&mut Vec<usize>| {
            class.first().is_some_and(|first| {
                let Task { operation: other, outcome, .. } = tasks[*first];
                outcome.is_none() && model.is_same(other, operation)
            })
        };
        // A condition on the outcome makes an operation one of its own.
        let free = self.tasks[task].outcome.is_none();
        match self.classes.iter_mut().filter(|_| free).find(alike) {
            Some(class) => class.push(task),
            None => self.classes.push(vec![task]),
        }
    }

    fn number_of(&mut self, state: M::State) -> usize {
        if let Some(number) = self.state_numbers.get(&state) {
            return *number;
        }
        let (state, number) = (Rc::new(state), self.states.len());
        self.states.push(Rc::clone(&state));
        self.state_numbers.insert(state, number);
        number
    }

    /// The state after a task, if its outcome fits.
    fn step(&mut self, state: usize, task: usize) -> Option<usize> {
        self.steps += 1;
        if let Some(known) = self.transitions.get(&(state, task)) {
            return *known;
        }
        let Task { operation, outcome, .. } = self.tasks[task];
        let from = Rc::clone(&self.states[state]);
        let next = match outcome {
            Some(outcome) => self.model.step(&from, operation, outcome),
            None => self.model.step_unknown(&from, operation),
        };
        let next = next.map(|next| self.number_of(next));
        self.transitions.insert((state, task), next);
        next
    }

    /// Passes all returns that `node` can pass without a choice, and keeps it unless another got
    /// as far with less.
    fn admit(&mut self, mut node: Node) {
        while node.turn < self.goal {
            // A read that fits now is placed now: it stands in nobody's way.
            for at in 0..self.turns[node.turn].reads.len() {
                let read = self.turns[node.turn].reads[at];
                let slot = self.slots[read];
                if !node.placed.contains(slot) && self.step(node.state, read).is_some() {
                    node.placed.insert(slot);
                    node.added.push(read);
                }
            }
            let slot = self.slots[self.turns[node.turn].task];
            if !node.placed.contains(slot) {
                break;
            }
            node.placed.remove(slot);
            node.turn += 1;
        }
        self.furthest = self.furthest.max(node.turn);
        let known = self.memo.entry((node.turn, node.state, node.placed.clone())).or_default();
        if known.iter().any(|used| used.is_subset(&node.used)) {
            return;
        }
        known.retain(|used| !node.used.is_subset(used));
        known.push(node.used.clone());
        self.waiting.push((node.turn, Reverse(node.used_count), self.nodes.len(), false));
        self.nodes.push(node);
    }

    fn try_updates(&mut self, parent: usize) {
        let (turn, state) = (self.nodes[parent].turn, self.nodes[parent].state);
        for at in 0..self.turns[turn].updates.len() {
            let task = self.turns[turn].updates[at];
            let slot = self.slots[task];
            if self.nodes[parent].placed.contains(slot) {
                continue;
            }
            let Some(state) = self.step(state, task) else { continue };
            let Node { placed, used, used_count, .. } = &self.nodes[parent];
            let (mut placed, used, used_count) = (placed.clone(), used.clone(), *used_count);
            placed.insert(slot);
            let added = vec![task];
            let parent = Some(parent);
            self.admit(Node { turn, state, placed, used, used_count, parent, added });
        }
        if self.turns[turn].optional > 0 {
            // Whoever gets as far without one more optional operation goes first.
            let used_count = self.nodes[parent].used_count + 1;
            self.waiting.push((turn, Reverse(used_count), parent, true));
        }
    }

    fn try_optional(&mut self, parent: usize) {
        let (turn, state) = (self.nodes[parent].turn, self.nodes[parent].state);
        for class in 0..self.classes.len() {
            let Some(task) = self.unused(parent, turn, class) else { continue };
            let next = self.step(state, task).filter(|next| *next != state);
            let Some(state) = next else { continue };
            let Node { placed, used, used_count, .. } = &self.nodes[parent];
            let (placed, mut used, count) = (placed.clone(), used.clone(), *used_count);
            // If any may be used again, only their number counts.
            used.insert(if self.again { used.count() } else { self.slots[task] });
            let (added, parent, used_count) = (vec![task], Some(parent), count + 1);
            self.admit(Node { turn, state, placed, used, used_count, parent, added });
        }
    }

    /// An optional operation of a class that can take effect now. Of those that do the same, the
    /// first one stands for all.
    fn unused(&self, node: usize, turn: usize, class: usize) -> Option<usize> {
        let node = &self.nodes[node];
        let optional = self.turns[turn].optional;
        let mut class = self.classes[class].iter().copied();
        let first = if self.again {
            class.next().filter(|_| node.used.count() < optional)
        } else {
            class.find(|task| !node.used.contains(self.slots[*task]))
        };
        first.filter(|task| self.slots[*task] < optional)
    }

    fn order_of(&self, last: usize) -> Order {
        let mut path = vec![last];
        while let Some(parent) = path.last().and_then(|node| self.nodes[*node].parent) {
            path.push(parent);
        }
        path.reverse();
        let mut order = Vec::new();
        for node in path {
            order.extend(self.nodes[node].added.iter().copied());
        }
        self.with_deadlines(&order)
    }

    /// For each call of an order, the call with the earliest return from there on.
    fn with_deadlines(&self, order: &[usize]) -> Order {
        let mut ranks = vec![usize::MAX; self.tasks.len()];
        for (rank, turn) in self.turns.iter().enumerate() {
            ranks[turn.task] = rank;
        }
        let mut earliest = usize::MAX;
        let mut dated: Vec<(usize, usize)> = Vec::new();
        for task in order.iter().rev() {
            earliest = earliest.min(ranks[*task]);
            // An optional operation behind all others explains nothing.
            if let Some(turn) = self.turns.get(earliest) {
                dated.push((*task, turn.task));
            }
        }
        dated.reverse();
        dated
    }
}
