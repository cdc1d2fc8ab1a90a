//! Whether an order that is known explains a history: one pass instead of a search.
#![expect(
    clippy::indexing_slicing,
    reason = "numbers of tasks are used on the tasks that gave them"
)]

use crate::linearizability::{
    model::Model,
    search::{Order, Task},
};

/// The order in which operations took effect, as somebody else says, and where reads fit into it.
///
/// That is found without going back: updates get their places as late as the returns allow, and a read
/// any state that it fits and that comes while it is under way.
struct Walk<'a, M: Model> {
    model: &'a M,
    tasks: &'a [Task<'a, M::Operation, M::Outcome>],
    /// Updates that have no place yet, the next one last.
    updates: Vec<usize>,
    /// Reads that have not been called yet, the next one last.
    later: Vec<usize>,
    /// Reads that were called and fitted nowhere yet.
    waiting: Vec<usize>,
    /// Whether a task has its place.
    has_place: Vec<bool>,
    state: M::State,
    order: Order,
}

/// An order of `tasks` that the model explains, if those with a place in `places` have their effect
/// in that order, those with one place as they come, and the others, which must be reads or may have
/// had none, anywhere.
///
/// `None` says nothing: another order may explain them.
pub(crate) fn follow<M: Model>(
    model: &M,
    tasks: &[Task<'_, M::Operation, M::Outcome>],
    places: &[Option<u64>],
) -> Option<Order> {
    let placed = |task: &usize| places.get(*task).copied().flatten();
    let all = 0..tasks.len();
    let mut updates: Vec<usize> = all.clone().filter(|task| placed(task).is_some()).collect();
    updates.sort_by_key(placed);
    updates.reverse();
    let mut later: Vec<usize> = all.filter(|task| placed(task).is_none()).collect();
    let called = |task: &usize| tasks.get(*task).map(|task| task.called);
    later.sort_by_key(|task| core::cmp::Reverse(called(task)));
    let mut walk = Walk {
        model,
        tasks,
        updates,
        later,
        waiting: Vec::new(),
        has_place: vec![false; tasks.len()],
        state: model.initial(),
        order: Order::new(),
    };

    let returns = tasks.iter().enumerate();
    let mut returns: Vec<_> = returns.filter_map(|(at, task)| Some((task.returned?, at))).collect();
    returns.sort_unstable();
    for (now, task) in returns {
        walk.call(now, task);
        while !walk.has_place[task] {
            walk.advance(now, task)?;
        }
    }
    Some(walk.order)
}

impl<M: Model> Walk<'_, M> {
    /// Reads that are called up to `now`, before `until` returns, may have read what is there.
    fn call(&mut self, now: u64, until: usize) {
        while let Some(task) = self.later.pop_if(|task| self.tasks[*task].called <= now) {
            let Task { operation, returned, outcome, .. } = self.tasks[task];
            // What has no place and never returned need not have taken effect.
            if returned.is_some() && self.model.is_read(operation, outcome) {
                self.waiting.push(task);
            }
        }
        self.let_read(until);
    }

    fn let_read(&mut self, until: usize) {
        for task in core::mem::take(&mut self.waiting) {
            match self.step(task) {
                Some(_) => self.place(task, until),
                None => self.waiting.push(task),
            }
        }
    }

    fn place(&mut self, task: usize, until: usize) {
        self.has_place[task] = true;
        self.order.push((task, until));
    }

    /// The next update takes effect, if it was called by `now`.
    fn advance(&mut self, now: u64, until: usize) -> Option<()> {
        let update = self.updates.pop_if(|task| self.tasks[*task].called <= now)?;
        self.state = self.step(update)?;
        self.place(update, until);
        self.let_read(until);
        Some(())
    }

    /// The state after `task`, if its outcome fits.
    fn step(&self, task: usize) -> Option<M::State> {
        let Task { operation, outcome, .. } = self.tasks[task];
        match outcome {
            Some(outcome) => self.model.step(&self.state, operation, outcome),
            None => self.model.step_unknown(&self.state, operation),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::prng::Prng;

    use super::*;
    use crate::linearizability::{
        register::{Register, RegisterOp},
        search::{Aim, Found, Goal, search},
    };

    type RegisterTask = Task<'static, RegisterOp<u64>, Option<u64>>;

    const WRITES: [RegisterOp<u64>; 3] =
        [RegisterOp::Write(0), RegisterOp::Write(1), RegisterOp::Write(2)];
    const VALUES: [Option<u64>; 3] = [Some(0), Some(1), Some(2)];

    fn write(value: usize, called: u64, returned: impl Into<Option<u64>>) -> RegisterTask {
        let returned = returned.into();
        let outcome = returned.map(|_| &None);
        Task { operation: &WRITES[value], called, returned, outcome }
    }

    fn read(value: usize, called: u64, returned: u64) -> RegisterTask {
        let outcome = Some(&VALUES[value]);
        Task { operation: &RegisterOp::Read, called, returned: Some(returned), outcome }
    }

    fn explains(tasks: &[RegisterTask], places: &[Option<u64>]) -> bool {
        follow(&Register(0), tasks, places).is_some()
    }

    #[test]
    fn reads_find_their_places_between_the_updates() {
        let tasks = [write(1, 0, 9), write(2, 1, 8), read(2, 2, 3), read(1, 4, 5)];
        assert!(explains(&tasks, &[Some(7), Some(3), None, None]));
        assert!(!explains(&tasks, &[Some(3), Some(7), None, None]), "2 is read before 1");
    }

    #[test]
    fn an_order_that_contradicts_the_clock_explains_nothing() {
        let tasks = [write(1, 0, 1), write(2, 2, 3)];
        assert!(explains(&tasks, &[Some(1), Some(2)]));
        assert!(!explains(&tasks, &[Some(2), Some(1)]));
    }

    #[test]
    fn an_update_without_a_place_had_no_effect() {
        let seen = [write(1, 0, None), read(1, 1, 2)];
        assert!(explains(&seen, &[Some(1), None]));
        assert!(!explains(&seen, &[None, None]));
        assert!(!explains(&[write(1, 0, 1)], &[None]), "this one returned");
    }

    /// Calls at random times, of which some never return.
    fn history(rng: &mut Prng) -> Vec<RegisterTask> {
        let mut tasks = Vec::new();
        for _ in 0..rng.between(1, 7) {
            let called = rng.below(12);
            let returned = called + rng.below(6);
            let value = usize::try_from(rng.below(3)).unwrap_or(0);
            tasks.push(match rng.below(6) {
                0..3 => read(value, called, returned),
                3 => write(value, called, None),
                _ => write(value, called, returned),
            });
        }
        tasks
    }

    /// Whatever order the search finds explains the history, and nothing explains one without.
    #[test]
    fn it_agrees_with_the_search() {
        let mut rng = Prng::new(7);
        let mut seen = [0, 0];
        for _ in 0..3000 {
            let tasks = history(&mut rng);
            let aim = Aim { steps_max: 100_000, goal: Goal::All, again: false };
            let mut places = vec![None; tasks.len()];
            let is_update = |at: usize| matches!(tasks[at].operation, RegisterOp::Write(_));
            match search(&Register(0), 0, &tasks, aim) {
                (Found::Order(order), _) => {
                    let updates = order.iter().filter(|(at, _)| is_update(*at));
                    (0..).zip(updates).for_each(|(place, (at, _))| places[*at] = Some(place));
                    assert!(explains(&tasks, &places), "{tasks:?} in {order:?}");
                    seen[0] += 1;
                }
                (Found::Stuck(_), _) => {
                    let updates = (0..tasks.len()).filter(|at| is_update(*at));
                    updates.for_each(|at| places[at] = Some(rng.below(100)));
                    assert!(!explains(&tasks, &places), "{tasks:?} in {places:?}");
                    seen[1] += 1;
                }
                (Found::Spent, _) => panic!("histories are small"),
            }
        }
        assert!(seen.iter().all(|count| *count > 300), "{seen:?}");
    }
}
