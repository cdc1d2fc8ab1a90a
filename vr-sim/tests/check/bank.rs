//! A bank that retries a transfer by itself, and takes the money twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vr_core::{Context, QueryContext, StateMachine};
use vr_sim::{Sim, prng::Prng};

use crate::{assert_says, complaint};

const ACCOUNTS: u64 = 4;
const TOTAL: u64 = 100 * ACCOUNTS;

#[derive(Serialize, Deserialize)]
struct Bank(BTreeMap<u64, u64>);

impl Default for Bank {
    fn default() -> Self {
        Self((0..ACCOUNTS).map(|account| (account, 100)).collect())
    }
}

/// From, to, how much.
type Transfer = (u64, u64, u64);

impl Bank {
    fn take(&mut self, from: u64, amount: u64) -> bool {
        let balance = self.0.entry(from).or_default();
        let enough = *balance >= amount;
        if enough {
            *balance -= amount;
        }
        enough
    }

    /// Accounts may not grow beyond 150.
    fn give(&mut self, to: u64, amount: u64) -> bool {
        let balance = self.0.entry(to).or_default();
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
            if self.take(from, amount) && self.give(to, amount) {
                return true;
            }
        }
        false
    }

    fn query(&self, _: &QueryContext, account: u64) -> u64 {
        self.0.get(&account).copied().unwrap_or(0)
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
            let total: u64 = bank.0.values().sum();
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
