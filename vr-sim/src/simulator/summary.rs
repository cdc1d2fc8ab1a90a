//! What a random run exercised, in numbers.

use core::{fmt, time::Duration};

use crate::simulator::{
    atlas::Reach,
    faults::{FaultKind, Faults},
    options::RunOptions,
};

/// Runs that a median needs.
const RUNS_MIN: usize = 20;

/// What a run exercised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events: deliveries and timers.
    pub events: u64,
    /// Operations that were executed.
    pub committed: u64,
    /// Operations whose clients were told so.
    pub acknowledged: u64,
    /// Calls whose clients cannot tell.
    pub unknown: u64,
    /// Times that a call which had been given up was resumed.
    pub resumed: u64,
    /// Views that started, the founding one not counted.
    pub views: u64,
    /// Processes that were killed.
    pub crashes: u64,
    /// Crashes that left a write in part.
    pub torn: u64,
    /// Processes that were started on a disk that had been used before.
    pub recoveries: u64,
    /// Messages with entries that a replica had asked for.
    pub transfers: u64,
    /// Times that a disk was made to lie.
    pub damage: u64,
    /// Disks that were wiped.
    pub wipes: u64,
    /// Times that a replica which had forgotten everything came back.
    pub rebuilds: u64,
    /// Primaries that left on purpose.
    pub handoffs: u64,
    /// Checkpoints that came to count at a replica.
    pub checkpoints: u64,
    /// Checkpoints that were fetched and installed.
    pub snapshots: u64,
    /// Chunks of checkpoints that were sent compressed.
    pub compressed: u64,
    /// Times that a primary was found to hold its lease.
    pub leases: u64,
    /// Times that a replica went on from a state on its state machine's own disk.
    pub resumed_states: u64,
    /// Entries that replicas wrote again with what another one had.
    pub repaired: u64,
    /// How long the run took in virtual time.
    pub elapsed: Duration,
    /// Equal for equal runs.
    pub fingerprint: u64,
}

impl Summary {
    /// Adds what another run exercised.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.committed += other.committed;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.resumed += other.resumed;
        self.views += other.views;
        self.crashes += other.crashes;
        self.torn += other.torn;
        self.recoveries += other.recoveries;
        self.transfers += other.transfers;
        self.damage += other.damage;
        self.wipes += other.wipes;
        self.rebuilds += other.rebuilds;
        self.repaired += other.repaired;
        self.handoffs += other.handoffs;
        self.checkpoints += other.checkpoints;
        self.snapshots += other.snapshots;
        self.compressed += other.compressed;
        self.leases += other.leases;
        self.resumed_states += other.resumed_states;
        self.elapsed += other.elapsed;
        self.fingerprint = self.fingerprint.rotate_left(1) ^ other.fingerprint;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events, {} committed, {} acknowledged, {} unknown, {} resumed, {} views, {} crashes, \
             {} recoveries, {} torn writes, {} transfers, {} damaged, {} wiped, {} rebuilt, \
             {} repaired, {} handed off, {} checkpoints, {} snapshots, {} compressed chunks, \
             {} leases, {} kept states, \
             {:.1} s, fingerprint {:016x}",
            self.events,
            self.committed,
            self.acknowledged,
            self.unknown,
            self.resumed,
            self.views,
            self.crashes,
            self.recoveries,
            self.torn,
            self.transfers,
            self.damage,
            self.wipes,
            self.rebuilds,
            self.repaired,
            self.handoffs,
            self.checkpoints,
            self.snapshots,
            self.compressed,
            self.leases,
            self.resumed_states,
            self.elapsed.as_secs_f64(),
            self.fingerprint
        )
    }
}

/// The least that runs must exercise, so that passing says something (O10).
#[derive(Clone, Debug, Default)]
pub struct Floors {
    runs: Vec<Summary>,
}

impl Floors {
    /// What a single run lacks; `None` when it exercised something of all that was drawn for it.
    #[must_use]
    pub fn lacks(summary: &Summary, options: &RunOptions) -> Option<&'static str> {
        let processes = options.faults.contains(FaultKind::Process);
        if options.damage == Reach::Beyond {
            return None;
        }
        if summary.committed == 0 {
            return Some("nothing was committed");
        }
        if options.faults == Faults::All && options.replicas > 2 && summary.views == 0 {
            return Some("no view changed");
        }
        if processes && summary.crashes > 0 && summary.recoveries == 0 {
            return Some("nothing that crashed came back");
        }
        None
    }

    /// Counts a run.
    pub fn add(&mut self, summary: Summary) {
        self.runs.push(summary);
    }

    /// What the runs lack together, if they are enough to tell: in the median of runs with all
    /// faults, 500 committed operations, 3 view changes and 2 crashes in ten seconds of storm.
    #[must_use]
    pub fn missed(&self, options: &RunOptions) -> Option<String> {
        let usual = RunOptions { seed: options.seed, ..RunOptions::new(0) };
        let comparable = options.faults == usual.faults && options.storm >= usual.storm;
        if !comparable || options.damage == Reach::Beyond || self.runs.len() < RUNS_MIN {
            return None;
        }
        let [committed, views, crashes] =
            [|run: &Summary| run.committed, |run: &Summary| run.views, |run: &Summary| run.crashes]
                .map(|of| self.median(of));
        let missed = committed < 500 || views < 3 || crashes < 2;
        missed.then(|| {
            format!(
                "in the median {committed} committed, {views} views and {crashes} crashes; \
                 at least 500, 3 and 2 are needed for passing to say something"
            )
        })
    }

    /// The median of one number over all runs.
    #[must_use]
    pub fn median(&self, of: impl Fn(&Summary) -> u64) -> u64 {
        let mut numbers: Vec<u64> = self.runs.iter().map(of).collect();
        numbers.sort_unstable();
        numbers.get(numbers.len() / 2).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Summary = Summary {
        events: 1,
        committed: 500,
        acknowledged: 1,
        unknown: 0,
        resumed: 0,
        views: 3,
        crashes: 2,
        torn: 0,
        recoveries: 2,
        transfers: 0,
        damage: 0,
        wipes: 0,
        rebuilds: 0,
        repaired: 0,
        handoffs: 0,
        checkpoints: 0,
        snapshots: 0,
        compressed: 0,
        leases: 0,
        resumed_states: 0,
        elapsed: Duration::ZERO,
        fingerprint: 0,
    };

    fn missed(run: Summary) -> Option<String> {
        let mut floors = Floors::default();
        (0..RUNS_MIN).for_each(|_| floors.add(run));
        floors.missed(&RunOptions::new(0))
    }

    #[test]
    fn runs_below_a_floor_miss_it() {
        assert_eq!(missed(GOOD), None);
        assert!(missed(Summary { committed: 499, ..GOOD }).is_some());
        assert!(missed(Summary { views: 2, ..GOOD }).is_some());
        assert!(missed(Summary { crashes: 1, ..GOOD }).is_some());
    }

    #[test]
    fn a_run_that_exercised_nothing_says_what_it_lacks() {
        let lacks = |run| Floors::lacks(&run, &RunOptions::new(0));
        assert_eq!(lacks(GOOD), None);
        assert_eq!(lacks(Summary { committed: 0, ..GOOD }), Some("nothing was committed"));
        assert_eq!(lacks(Summary { views: 0, ..GOOD }), Some("no view changed"));
        let gone = Summary { recoveries: 0, ..GOOD };
        assert_eq!(lacks(gone), Some("nothing that crashed came back"));
    }
}
