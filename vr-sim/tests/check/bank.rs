//! A bank that retries a transfer by itself, and takes the money twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, StateMachine};
use vr_sim::{Sim, prng::Prng};

use vr_sim::linearizability::state_machine::StateMachineModel;

use crate::{assert_says, complaint};

const ACCOUNTS: u64 = 4;
const TOTAL: u64 = 100 * ACCOUNTS;

#[derive(Clone, Serialize, Deserialize)]
struct Bank {
    balances: BTreeMap<u64, u64>,
    /// Whether it is the one that was not thought through.
    hasty: bool,
}

impl Bank {
    fn new(hasty: bool) -> Self {
        Self { balances: (0..ACCOUNTS).map(|account| (account, 100)).collect(), hasty }
    }
}

impl Default for Bank {
    fn default() -> Self {
        Self::new(true)
    }
}

/// From, to, how much.
type Transfer = (u64, u64, u64);

impl Bank {
    fn take(&mut self, from: u64, amount: u64) -> bool {
        let balance = self.balances.entry(from).or_default();
        let enough = *balance >= amount;
        if enough {
            *balance -= amount;
        }
        enough
    }

    /// Accounts may not grow beyond 150.
    fn give(&mut self, to: u64, amount: u64) -> bool {
        let balance = self.balances.entry(to).or_default();
        let room = *balance + amount <= 150;
        if room {
            *balance += amount;
        }
        room
    }
}

impl StateMachine for Bank {
    type Operation = Transfer;
    type Reply = bool;
    type Query = u64;
    type Answer = u64;

    fn apply(&mut self, _: &Context, (from, to, amount): Transfer) -> bool {
        // Tries again with half of it: the first half-done transfer is not taken back.
        for amount in [amount, amount / 2] {
            if self.take(from, amount) {
                if self.give(to, amount) {
                    return true;
                }
                if !self.hasty {
                    self.give(from, amount);
                }
            }
        }
        false
    }

    fn query(&self, _: &QueryContext, account: u64) -> u64 {
        self.balances.get(&account).copied().unwrap_or(0)
    }

    vr_core::serde_snapshot!();
}

fn transfers(sim: &mut Sim<Bank>) {
    let account = |rng: &mut Prng| rng.below(ACCOUNTS);
    sim.operations(move |rng| (account(rng), account(rng), rng.below(60)));
    sim.queries(move |rng| account(rng));
}

#[test]
fn a_transfer_that_is_taken_twice_breaks_the_users_invariant() {
    let text = complaint::<Bank>(|sim| {
        transfers(sim);
        for (replica, bank) in sim.run().states {
            let total: u64 = bank.balances.values().sum();
            assert_eq!(total, TOTAL, "replica {replica} does not keep the money together");
        }
    });
    assert_says(
        &text,
        &[
            "seed 0: ",
            "does not keep the money together",
            "bank.rs:",
            "VR_SIM_SEED=0 cargo test bank::",
        ],
    );
}

#[test]
fn a_transfer_that_is_taken_twice_is_not_what_a_careful_bank_does() {
    let text = complaint::<Bank>(|sim| {
        transfers(sim);
        sim.clients(2..=3).callers(1..=1).model(StateMachineModel::new(Bank::new(false)));
    });
    assert_says(&text, &["seed 0: not linearizable", "no order explains these calls", " -> "]);
}

#[test]
fn what_its_own_model_does_is_no_fault() {
    let checked = vr_sim::check::<Bank>(0..10, |sim| {
        transfers(sim);
        sim.clients(2..=3).callers(1..=1).linearizable();
    });
    assert!(checked.total.acknowledged > 500, "{checked}");
}

#[test]
fn a_judge_of_the_history_is_heard() {
    let text = complaint::<Bank>(|sim| {
        transfers(sim);
        sim.judge(|history| match history.len() {
            0 => Ok(()),
            calls => Err(format!("{calls} calls are too many")),
        });
    });
    assert_says(&text, &["calls are too many", "VR_SIM_SEED=0"]);
}
