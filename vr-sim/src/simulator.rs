//! A random run: a storm of load and faults drawn from one seed, then calm, and the oracles.

use core::{fmt, time::Duration};
use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use vr_core::{
    Config, Read,
    model::{time::Instant, types::ReplicaId},
};

use crate::{
    actor::Actor,
    cluster::{
        Cluster,
        client::{Ended, EndedOf, Wanted},
    },
    disk::faults::DiskFaults,
    network::faults::NetworkFaults,
    options::GroupOptions,
    prng::Prng,
    workload::{self, Kv},
};

/// What may go wrong in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faults {
    /// Nothing.
    None,
    /// Messages are late, lost, doubled and overtaken, links are cut, connections break.
    Network,
    /// Processes crash and pause, disks are slow and forget what was not synced.
    Disk,
    /// All of that, and clocks jump.
    #[default]
    All,
}

impl Faults {
    const fn of_network(self) -> bool {
        matches!(self, Self::Network | Self::All)
    }

    const fn of_disk(self) -> bool {
        matches!(self, Self::Disk | Self::All)
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "network" => Ok(Self::Network),
            "disk" => Ok(Self::Disk),
            "all" => Ok(Self::All),
            other => Err(format!("'{other}' is none of none, network, disk, all")),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Network => "network",
            Self::Disk => "disk",
            Self::All => "all",
        })
    }
}

/// What a random run is made of; the rest is drawn from the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Decides everything that these options leave open.
    pub seed: u64,
    /// How many replicas the group has.
    pub replicas: u64,
    /// What may go wrong.
    pub faults: Faults,
    /// How long the storm lasts, in virtual time.
    pub storm: Duration,
}

impl RunOptions {
    /// A run of three replicas with all faults.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, replicas: 3, faults: Faults::All, storm: Duration::from_secs(10) }
    }
}

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
    /// Views that started, the founding one not counted.
    pub views: u64,
    /// Processes that were killed.
    pub crashes: u64,
    /// Crashes that left a write in part.
    pub torn: u64,
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
        self.views += other.views;
        self.crashes += other.crashes;
        self.torn += other.torn;
        self.elapsed += other.elapsed;
        self.fingerprint = self.fingerprint.rotate_left(1) ^ other.fingerprint;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events, {} committed, {} acknowledged, {} unknown, {} views, {} crashes, \
             {} torn writes, {:.1} s, fingerprint {:016x}",
            self.events,
            self.committed,
            self.acknowledged,
            self.unknown,
            self.views,
            self.crashes,
            self.torn,
            self.elapsed.as_secs_f64(),
            self.fingerprint
        )
    }
}

/// Runs one seed to its end.
///
/// # Panics
/// When an oracle objects, when the group does not converge after the storm, and when a replica
/// itself panics; the message ends with the state of everything and the last events.
#[must_use]
pub fn run(options: &RunOptions) -> Summary {
    let mut storm = Storm::new(options);
    storm.found();
    storm.rage();
    storm.calm()
}

/// Limits as `rng` draws them: often the defaults, otherwise so small that they are met.
fn drawn_config(rng: &mut Prng) -> Config {
    let mut small = |usual: u32, least: u32| {
        if rng.below(3) == 0 {
            u32::try_from(rng.between(least.into(), u64::from(least) * 8)).unwrap_or(least)
        } else {
            usual
        }
    };
    let usual = Config::default();
    let mut config = Config::default();
    config.window = small(usual.window, 1);
    config.pipeline_ops_max = small(usual.pipeline_ops_max, 4);
    config.transfer_headers_max = small(usual.transfer_headers_max, 2);
    config.transfer_bytes_max = small(usual.transfer_bytes_max, 500);
    config.execute_ops_max = small(usual.execute_ops_max, 1);
    config.forward_ops_max = small(usual.forward_ops_max, 2);
    config.reads_max = small(usual.reads_max, 1);
    if rng.below(3) == 0 {
        config.log_cache_bytes_max = rng.below(4000);
    }
    config
}

struct Storm {
    group: Cluster<Kv>,
    rng: Prng,
    faults: Faults,
    until: Instant,
    stopped: Arc<AtomicBool>,
    crashes: u64,
}

impl Storm {
    fn new(options: &RunOptions) -> Self {
        let mut rng = Prng::stream(options.seed, "storm", 0);
        let config = drawn_config(&mut rng);
        let mut group =
            GroupOptions::of(options.replicas).with_seed(options.seed).with_config(config);
        if options.faults.of_network() {
            group.network = NetworkFaults::drawn(&mut rng);
        }
        if options.faults.of_disk() {
            group.disk = DiskFaults::drawn(&mut rng);
        }
        Self {
            group: Cluster::unstarted(group, Kv::default),
            rng,
            faults: options.faults,
            until: Instant::ZERO + options.storm,
            stopped: Arc::default(),
            crashes: 0,
        }
    }

    /// Members start in any order, with any time in between.
    fn found(&mut self) {
        let mut waiting = self.group.ids();
        while !waiting.is_empty() {
            let next = waiting.swap_remove(self.rng.position(waiting.len()));
            self.group.start(next);
            let pause = Duration::from_millis(self.rng.below(100));
            self.group.run_for(pause);
        }
        for number in 0..self.rng.between(1, 6) {
            self.add_client(number);
        }
    }

    fn add_client(&mut self, number: u64) {
        let client = self.group.client_without_session();
        let pause_max = self.rng.between(1, 40) * 1000;
        // Several callers share the session and its window.
        for _ in 0..self.rng.between(1, 4) {
            let mut rng = Prng::stream(self.rng.next_u64(), "caller", number);
            let stopped = Arc::clone(&self.stopped);
            client.drive(move || {
                let pause = Duration::from_micros(rng.below(pause_max));
                let wanted = if rng.below(5) == 0 {
                    Wanted::Query(workload::drawn_key(&mut rng), Read::Linearizable)
                } else {
                    Wanted::Operation(workload::drawn(&mut rng))
                };
                (!stopped.load(Ordering::Relaxed)).then_some((pause, wanted))
            });
        }
    }

    fn rage(&mut self) {
        let calm_max = self.rng.between(50, 1500);
        while self.group.now() < self.until {
            let pause = Duration::from_millis(self.rng.below(calm_max));
            self.group.run_for(pause);
            let strike = self.rng.below(12);
            if self.faults.of_disk() {
                self.strike_process(strike);
            }
            if self.faults.of_network() {
                self.strike_link(strike);
            }
        }
    }

    fn some_replica(&mut self) -> ReplicaId {
        let ids = self.group.ids();
        self.rng.pick(&ids).copied().unwrap_or_default()
    }

    fn strike_process(&mut self, strike: u64) {
        let replica = self.some_replica();
        match strike {
            0 => {
                self.group.crash(replica);
                self.crashes += 1;
            }
            1 | 2 => {
                let struck = if strike == 1 { replica } else { self.group.primary() };
                self.group.crash_silently(struck);
                self.crashes += 1;
                if self.rng.below(2) == 0 {
                    self.group.restart(struck);
                }
            }
            3..=5 => self.restart_the_dead(),
            6 => self.group.pause(replica),
            7 => {
                for id in self.group.ids() {
                    self.group.resume(id);
                }
            }
            10 => self.group.hold_storage(replica),
            11 => {
                for id in self.group.ids() {
                    self.group.release_storage(id);
                }
            }
            8 if self.rng.below(4) == 0 => {
                self.group.crash_all();
                self.crashes += u64::try_from(self.group.ids().len()).unwrap_or(0);
                self.group.start_all();
            }
            9 if self.rng.below(2) == 0 => self.group.disk(replica).fail_next_sync(),
            9 if self.faults == Faults::All => {
                let by = Duration::from_millis(self.rng.below(100_000));
                self.group.jump_clock_ahead(replica, by);
            }
            8 if self.faults == Faults::All => {
                let by = Duration::from_millis(self.rng.below(100_000));
                self.group.jump_clock_back(replica, by);
            }
            _ => {}
        }
    }

    fn restart_the_dead(&mut self) {
        for id in self.group.ids() {
            if self.group.stop_reason(id).is_some() {
                self.group.crash(id);
            }
        }
        self.group.start_all();
    }

    fn strike_link(&mut self, strike: u64) {
        let (one, other) = (self.some_replica(), self.some_replica());
        match strike {
            3 => self.group.isolate(one),
            6 if one != other => self.group.cut(one, other),
            7 | 8 => self.group.heal(),
            9 if one != other => {
                let until = self.group.now() + Duration::from_millis(self.rng.below(2000));
                self.group.network().clog(one.into(), other.into(), until);
            }
            10 if one != other => self.group.kill_connection(one, other),
            11 => {
                let mut side = self.group.ids();
                side.retain(|_| self.rng.below(2) == 0);
                self.group.partition(side.into_iter().map(Actor::from));
            }
            _ => {}
        }
    }

    /// Ends the storm for just as many replicas as are needed, and for all others for ever; those
    /// that are left must execute what they are asked to. A group that is not founded yet needs
    /// all its members, so it is left out.
    fn heal_a_core(&mut self) {
        if !self.group.ids().into_iter().all(|id| self.group.has_joined(id)) {
            return;
        }
        let mut core = self.group.ids();
        while core.len() > self.group.quorum() {
            let lost = core.swap_remove(self.rng.position(core.len()));
            self.group.crash(lost);
        }
        self.group.mend_only(&core);
        let client = self.group.client();
        let call = client.request(workload::add("core", 1));
        self.group.run_until_answered(call);
        if self.group.reply_of(call).is_none() {
            self.group.fail("a quorum that is up and connected executes what it is asked to");
        }
    }

    /// Ends the storm; everyone must agree again, and every call must end.
    fn calm(mut self) -> Summary {
        self.stopped.store(true, Ordering::Relaxed);
        self.heal_a_core();
        self.group.heal_and_converge();
        let count = |wanted: fn(&EndedOf<Kv>) -> bool| {
            let history = self.group.history();
            let ended = history.iter().filter_map(|call| call.ended.as_ref());
            u64::try_from(ended.filter(|(_, ended)| wanted(ended)).count()).unwrap_or(0)
        };
        let torn = self.group.ids().into_iter().map(|id| self.group.disk(id).torn()).sum();
        Summary {
            events: self.group.steps(),
            committed: u64::try_from(self.group.committed().len()).unwrap_or(0),
            acknowledged: count(|ended| matches!(ended, Ended::Replied(_))),
            unknown: count(|ended| matches!(ended, Ended::Failed(_))),
            views: u64::try_from(self.group.views_started()).unwrap_or(0),
            crashes: self.crashes,
            torn,
            elapsed: self.group.now().since(Instant::ZERO),
            fingerprint: self.group.fingerprint(),
        }
    }
}
