//! A storm of load and faults over a group that runs any service, and the calm after it.

use core::{fmt, ops::RangeInclusive, time::Duration};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use vr_core::{
    Config, Durability,
    model::{checkpoint::CHUNK_BYTES, time::Instant, types::ReplicaId},
};

use crate::{
    cluster::{
        Cluster,
        client::{Ended, EndedOf, Service},
    },
    disk::faults::DiskFaults,
    network::faults::NetworkFaults,
    options::GroupOptions,
    prng::Prng,
    simulator::{
        atlas::{Atlas, Reach},
        crowd::Crowd,
        faults::{FaultKind, Faults},
        load::Load,
        options::{Ending, RunOptions},
        summary::Summary,
    },
    state_disk::StatePlace,
};

/// How long a group is watched whose disks lied more than it can survive.
const AFTERMATH: Duration = Duration::from_secs(5);

/// How long a mended group has to get to work, and one without a primary to find another.
const LULL: Duration = Duration::from_secs(2);

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn drawn(rng: &mut Prng, range: &RangeInclusive<u64>) -> u64 {
    rng.between(*range.start(), *range.end())
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

/// Checkpoints as `rng` draws them: in most runs many, and of the log below them a little stays.
fn draw_checkpoints(rng: &mut Prng, config: &mut Config) {
    config.checkpoint_ops = match rng.below(4) {
        0 => 0,
        _ => u32::try_from(rng.between(4, 120)).unwrap_or(4),
    };
    config.log_retain_ops = match rng.below(2) {
        0 => 0,
        _ => u32::try_from(rng.below(60)).unwrap_or(0),
    };
    if rng.below(4) == 0 {
        config.checkpoint_bytes = rng.between(2000, 20_000);
    }
}

/// How much of the log is kept for want of a checkpoint, as `rng` draws it: in a third of the runs with
/// checkpoints as little as the limits permit, or somewhat more.
fn draw_log(rng: &mut Prng, config: &mut Config) {
    if rng.below(3) != 0 || config.checkpoint_ops == 0 {
        return;
    }
    let kept = 2 * (u64::from(config.checkpoint_ops) + u64::from(config.log_retain_ops));
    let least = kept.max(u64::from(config.pipeline_ops_max) + 1);
    config.log_ops_max = rng.between(least, 2 * least);
}

/// How many bytes the log may have, as `rng` draws it: in a sixth of the runs with checkpoints a few
/// of the largest requests.
fn draw_log_bytes(rng: &mut Prng, config: &mut Config) {
    if rng.below(6) != 0 || config.checkpoint_ops == 0 {
        return;
    }
    config.request_bytes_max = 4096;
    config.pipeline_bytes_max = u32::try_from(rng.between(4352, 9000)).unwrap_or(9000);
    config.log_bytes_max = rng.between(16_000, 48_000);
    config.checkpoint_bytes = config.checkpoint_bytes.min(config.log_bytes_max / 2);
}

/// How fast checkpoints are fetched, as `rng` draws it: as usual, not slowed down, as slowly as can be
/// said, or in between.
fn draw_pace(rng: &mut Prng, config: &mut Config) {
    let chunk = u64::from(CHUNK_BYTES);
    config.fetch_bytes_per_second = match rng.below(4) {
        0 => 0,
        1 => chunk,
        2 => rng.between(chunk, 8 * chunk),
        _ => config.fetch_bytes_per_second,
    };
}

/// When a replica has to fetch a checkpoint, and how fast it does, as drawn from `seed`.
fn draw_transfers(seed: u64, config: &mut Config) {
    draw_log(&mut Prng::stream(seed, "log", 0), config);
    draw_log_bytes(&mut Prng::stream(seed, "log bytes", 0), config);
    draw_pace(&mut Prng::stream(seed, "pace", 0), config);
}

/// How much a backup holds for its storage, as `rng` draws it: in a third of the runs with disks that
/// may be slow it is little, down to one message at a time.
fn draw_undurable(rng: &mut Prng, config: &mut Config) {
    if rng.below(3) == 0 {
        config.undurable_bytes_max = rng.between(1, 8000);
    }
}

/// Leases as `rng` draws them: in a third of the runs. Returns how far clocks may be off: with
/// leases no more than the limit says, otherwise by a factor of two.
fn draw_leases(rng: &mut Prng, config: &mut Config) -> (u64, u64) {
    if rng.below(3) != 0 {
        return (500_000, 2_000_000);
    }
    config.lease = Duration::from_millis(rng.between(60, 140));
    let drift = rng.between(0, 50_000);
    config.clock_drift_ppm_max = u32::try_from(drift).unwrap_or_default();
    (1_000_000 - drift, 1_000_000 + drift)
}

/// Where the state is, and how often it is made durable, as `rng` draws it: in a third of the runs on
/// a disk of its own.
fn drawn_place(rng: &mut Prng, config: &mut Config) -> StatePlace {
    if rng.below(3) != 0 {
        return StatePlace::Memory;
    }
    config.persist_ops = match rng.below(4) {
        0 => 0,
        _ => u32::try_from(rng.between(1, 60)).unwrap_or(1),
    };
    if rng.below(4) == 0 {
        config.persist_bytes = rng.between(500, 8000);
    }
    StatePlace::MeddledDisk
}

/// Whether disks may be wiped beside the damage that `atlas` does: a replica whose log is damaged
/// for good and one that is not back yet would be away together.
fn wipes_fit(durability: Durability, reach: Reach, atlas: &Atlas) -> bool {
    match durability {
        Durability::Full => reach != Reach::None && atlas.mortal.is_empty(),
        Durability::ViewOnly => reach != Reach::None,
        Durability::Diskless => false,
    }
}

/// A group under load, and what happens to it.
///
/// Its life is [`found`](Self::found), [`rage`](Self::rage), [`calm`](Self::calm); whoever owns it
/// may do other things to the group in between.
pub struct Storm<S: Service> {
    pub(super) group: Cluster<S>,
    pub(super) rng: Prng,
    pub(super) clocks: Prng,
    /// How slow and how fast clocks run, in millionths of the true rate.
    pub(super) clock_rates: (u64, u64),
    pub(super) sides: Prng,
    pub(super) wipes: Prng,
    /// Whether disks are wiped in this run.
    pub(super) wiping: bool,
    pub(super) wiped: u64,
    pub(super) orders: Prng,
    /// Whether operators give orders in this run.
    pub(super) ordering: bool,
    pub(super) faults: Faults,
    pub(super) crashes: u64,
    pub(super) atlas: Atlas,
    pub(super) load: Load<S>,
    reach: Reach,
    pub(super) ending: Ending,
    pub(super) durability: Durability,
    length: Duration,
    stopped: Arc<AtomicBool>,
    crowd: Crowd<S>,
}

impl<S: Service> Storm<S> {
    /// A group that is not started yet, with limits and faults as the seed says.
    #[must_use]
    pub fn new(options: &RunOptions, load: Load<S>) -> Self {
        let mut rng = Prng::stream(options.seed, "storm", 0);
        let mut config = drawn_config(&mut rng);
        let mut sessions = Prng::stream(options.seed, "sessions", 0);
        if sessions.below(8) == 0 {
            // Clients close each other's sessions.
            config.clients_max = u32::try_from(sessions.between(2, 8)).unwrap_or(1);
        }
        let mut checkpoints = Prng::stream(options.seed, "checkpoints", 0);
        draw_checkpoints(&mut checkpoints, &mut config);
        draw_transfers(options.seed, &mut config);
        let clock_rates = draw_leases(&mut Prng::stream(options.seed, "leases", 0), &mut config);
        let padding = if checkpoints.below(3) == 0 { 100 << 10 } else { 0 };
        let mut state = Prng::stream(options.seed, "state", 0);
        let place = drawn_place(&mut state, &mut config);
        let mut group =
            GroupOptions::of(options.replicas).with_seed(options.seed).with_config(config);
        group.durability = options.durability;
        group.padding = padding;
        group.mixed_compression = true;
        group.state = place;
        if options.faults.contains(FaultKind::Network) {
            group.network = NetworkFaults::drawn(&mut rng);
        }
        if options.faults.contains(FaultKind::Disk) {
            group.disk = DiskFaults::drawn(&mut rng);
            draw_undurable(&mut Prng::stream(options.seed, "undurable", 0), &mut group.config);
        }
        let lies = options.faults.contains(FaultKind::Disk);
        let reach =
            if lies || options.damage == Reach::Beyond { options.damage } else { Reach::None };
        if options.faults.contains(FaultKind::Network) {
            group.network = group.network.narrowed(&mut Prng::stream(options.seed, "width", 0));
        }
        if reach != Reach::None {
            // Damage is found by whoever looks: in some runs early, in some at the next start.
            let mut scrub = Prng::stream(options.seed, "scrub", 0);
            group.config.scrub_interval = Duration::from_millis(scrub.between(100, 20_000));
        }
        let make = Arc::clone(&load.make);
        let mut group = Cluster::unstarted_each(group, move |replica| make(replica));
        if reach != Reach::None {
            group.keep_disk_history();
        }
        let atlas = Prng::stream(options.seed, "atlas", 0);
        let atlas = Atlas::drawn(atlas, reach, &group.ids());
        let mut wipes = Prng::stream(options.seed, "wipes", 0);
        let wiping = wipes.below(2) == 0 && wipes_fit(options.durability, reach, &atlas);
        let mut orders = Prng::stream(options.seed, "orders", 0);
        let ordering = orders.below(2) == 0;
        let crowd = Crowd::drawn(options.seed, &load);
        Self {
            crowd,
            atlas,
            wipes,
            wiping,
            wiped: 0,
            orders,
            ordering,
            reach,
            ending: options.ending,
            durability: options.durability,
            group,
            rng,
            clocks: Prng::stream(options.seed, "clocks", 0),
            clock_rates,
            sides: Prng::stream(options.seed, "sides", 0),
            faults: options.faults,
            crashes: 0,
            load,
            length: options.storm,
            stopped: Arc::default(),
        }
    }

    /// The group, to look at.
    #[must_use]
    pub const fn group(&self) -> &Cluster<S> {
        &self.group
    }

    /// The group, to do something to it.
    pub const fn group_mut(&mut self) -> &mut Cluster<S> {
        &mut self.group
    }

    /// Members start in any order, with any time in between; then clients begin.
    pub fn found(&mut self) {
        let mut waiting = self.group.ids();
        while !waiting.is_empty() {
            let next = waiting.swap_remove(self.rng.position(waiting.len()));
            self.group.start(next);
            let pause = Duration::from_millis(self.rng.below(100));
            self.group.run_for(pause);
        }
        for number in 0..drawn(&mut self.rng, &self.load.clients) {
            self.add_client(number);
        }
    }

    fn add_client(&mut self, number: u64) {
        let client = self.group.client_without_session();
        self.crowd.joined(&client);
        let pause_max = drawn(&mut self.rng, &self.load.pause_ms_max) * 1000;
        // Several callers share the session and its window.
        for caller in 0..drawn(&mut self.rng, &self.load.callers) {
            let mut rng = Prng::stream(self.rng.next_u64(), "caller", number);
            let (stopped, draw) = (Arc::clone(&self.stopped), Arc::clone(&self.load.draw));
            let (client, mut several, resumer) = self.crowd.caller(&client, caller);
            let next = move || {
                let pause = Duration::from_micros(rng.below(pause_max));
                let mut wanted = vec![draw(&mut rng)];
                several.extend::<S>(&mut wanted, &draw);
                (!stopped.load(Ordering::Relaxed)).then_some((pause, wanted))
            };
            client.drive_resuming(next, resumer);
        }
    }

    /// Lets load and faults loose for as long as the options say.
    pub fn rage(&mut self) {
        let at_links = self.faults.contains(FaultKind::Network);
        let at_replicas = [FaultKind::Process, FaultKind::Disk, FaultKind::Clock]
            .into_iter()
            .any(|kind| self.faults.contains(kind));
        let until = Instant::ZERO + self.length;
        let calm_max = self.rng.between(50, 1500);
        while self.group.now() < until {
            let pause = Duration::from_millis(self.rng.below(calm_max));
            self.group.run_for(pause);
            let strike = self.rng.below(12);
            if at_replicas {
                self.strike_process(strike);
            }
            if at_links {
                self.strike_link(strike);
            }
            self.strike_platter();
            self.strike_whole_disk();
            self.strike_clock();
            self.give_orders();
        }
        if self.group.views_started() == 0 {
            self.take_the_primary_away();
        }
    }

    /// A storm in which no primary was lost says little about views: this one loses one.
    fn take_the_primary_away(&mut self) {
        let of_processes = self.faults.contains(FaultKind::Process);
        let of_links = self.faults.contains(FaultKind::Network);
        if self.group.ids().len() < 3 || self.reach == Reach::Beyond {
            return;
        }
        if of_processes || of_links {
            self.group.mend();
            self.group.run_for(LULL);
            let primary = self.group.primary();
            if of_processes && self.may_end(primary) {
                self.group.crash_silently(primary);
                self.crashes += 1;
            } else {
                self.group.isolate(primary);
            }
            self.group.run_for(LULL);
        }
    }

    /// Whether the process of `replica` may end here: what is promised holds only while not too
    /// many replicas are without their memory at once.
    pub(super) fn may_end(&self, replica: ReplicaId) -> bool {
        self.reach == Reach::Beyond || self.group.can_spare(replica)
    }

    /// Whether all processes may end at once.
    pub(super) fn forgives(&self) -> bool {
        self.reach == Reach::Beyond || self.durability == Durability::Full
    }

    /// Ends the storm; everyone must agree again, and every call must end, unless more disks may
    /// have lied than the group can do without.
    ///
    /// # Panics
    /// When that does not come about, with the state of everything.
    pub fn calm(&mut self) -> Summary {
        self.stopped.store(true, Ordering::Relaxed);
        if self.reach == Reach::Beyond {
            self.group.mend();
            self.group.run_for(AFTERMATH);
        } else {
            self.heal_a_core();
            self.group.heal_and_converge();
        }
        let count = |wanted: fn(&EndedOf<S>) -> bool| {
            let history = self.group.history();
            let ended = history.iter().filter_map(|call| call.ended.as_ref());
            length(ended.filter(|(_, ended)| wanted(ended)).count())
        };
        let torn = self.group.ids().into_iter().map(|id| self.group.disk(id).torn()).sum();
        Summary {
            events: self.group.steps(),
            committed: length(self.group.committed().len()),
            acknowledged: count(|ended| matches!(ended, Ended::Replied(_))),
            unknown: count(|ended| matches!(ended, Ended::Failed(_))),
            resumed: self.crowd.resumed(),
            views: length(self.group.views_started()),
            crashes: self.crashes,
            torn,
            damage: self.atlas.done,
            wipes: self.wiped,
            rebuilds: self.group.rebuilds(),
            repaired: self.group.repairs(),
            handoffs: self.group.handoffs(),
            checkpoints: self.group.checkpoints(),
            snapshots: self.group.snapshots(),
            compressed: self.group.compressed_chunks(),
            leases: self.group.leases(),
            resumed_states: self.group.resumed_states(),
            recoveries: self.group.starts().saturating_sub(length(self.group.ids().len())),
            transfers: self.group.transfers(),
            elapsed: self.group.now().since(Instant::ZERO),
            fingerprint: self.group.fingerprint(),
        }
    }
}

impl<S: Service> fmt::Debug for Storm<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storm")
            .field("faults", &self.faults)
            .field("length", &self.length)
            .field("load", &self.load)
            .finish_non_exhaustive()
    }
}
