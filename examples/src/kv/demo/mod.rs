//! The demo: three replicas, a load, a primary that dies, and proof that nothing was lost.

use std::{
    env, fs,
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{task::JoinSet, time::sleep};
use vr_core::Durability;

use crate::kv::demo::{
    fleet::Fleet,
    load::{Record, Shared, Worker},
    report::{Kill, Report},
};

pub mod check;
pub mod fleet;
pub mod load;
pub mod report;

/// How long replicas may take to form a group, or to come back.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a killed replica stays down at most; less once the others have acknowledged a write.
const DOWN_MAX: Duration = Duration::from_secs(1);
/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(5);

/// What the demo is asked to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How many replica processes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub replicas: u8,
    /// What the replicas keep on disk: full, view-only or diskless. In the last two the demo kills
    /// a minority at a time, its primary among them, and never all
    #[arg(long, value_name = "MODE", default_value_t = Durability::Full)]
    pub durability: Durability,
    /// How many concurrent clients
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub clients: u16,
    /// How many seconds of load
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Bytes of each value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub value_bytes: u32,
    /// How often the primary, or a minority with it, is killed during the load
    #[arg(long, default_value_t = 1)]
    pub failovers: u16,
    /// An empty directory for the replicas' data; kept afterwards. Default: a temporary one
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Seeds the clients' choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Runs the demo with replicas of the program at `program`.
///
/// # Errors
/// A replica did not start or did not come back, or could not be asked. What is wrong with the
/// data is in the [`Report`].
pub async fn run(program: PathBuf, options: &Options) -> Result<Report> {
    require_survivors(options)?;
    let mut dir = Directory::new(options.dir.clone())?;
    let fleet = Fleet::new(program, dir.path.clone(), usize::from(options.replicas))?;
    let mut fleet = fleet.with_durability(options.durability);
    let progress = progress(options);
    let result = Demo { options, fleet: &mut fleet, progress: &progress }.run().await;
    progress.finish_and_clear();
    dir.keep |= !result.as_ref().is_ok_and(Report::is_good);
    if dir.keep {
        say(&progress, &format!("data and logs are kept in {}", dir.path.display()));
    }
    result
}

/// Without a log on disk a group that lost more than a minority at once blocks for ever.
fn require_survivors(options: &Options) -> Result<()> {
    let Options { durability, replicas, failovers, .. } = options;
    ensure!(
        *durability == Durability::Full || *replicas >= 3 || *failovers == 0,
        "{replicas} replicas with --durability {durability} survive no crash; \
         choose 3 --replicas or more, or --failovers 0"
    );
    Ok(())
}

/// Where the replicas' data is; goes away when dropped, unless it is to be kept.
struct Directory {
    path: PathBuf,
    keep: bool,
}

impl Directory {
    fn new(chosen: Option<PathBuf>) -> Result<Self> {
        let keep = chosen.is_some();
        let path = chosen.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            env::temp_dir().join(format!("vr-kv-demo-{}-{now}", process::id()))
        });
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut content = fs::read_dir(&path)?;
        ensure!(
            content.next().is_none(),
            "{} is not empty; choose another --dir, or empty it",
            path.display()
        );
        Ok(Self { path, keep })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the demo's data");
        }
    }
}

fn progress(options: &Options) -> ProgressBar {
    let bar = ProgressBar::new(u64::from(options.seconds) * 1000);
    let style = "{elapsed_precise} [{bar:30}] {msg}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| {
        // The template above is a constant that parses.
        ProgressStyle::default_bar()
    }));
    bar
}

struct Demo<'a> {
    options: &'a Options,
    fleet: &'a mut Fleet,
    progress: &'a ProgressBar,
}

impl Demo<'_> {
    async fn run(&mut self) -> Result<Report> {
        self.say("starting the replicas");
        self.fleet.start_all()?;
        self.fleet.wait_until_normal(PATIENCE).await?;
        let shared = Arc::new(Shared {
            addresses: self.fleet.addresses(),
            value_bytes: usize::try_from(self.options.value_bytes)?,
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let mut workers = self.workers(&shared);
        let kills = self.kills(&shared).await;
        let killed_at = self.kill_all_that_may().await;
        shared.stop.store(true, Ordering::Relaxed);
        let (kills, killed_at) = (kills?, killed_at?);
        let records = collect(&mut workers).await?;
        let restarted_at = Instant::now();
        self.fleet.start_all()?;
        self.fleet.wait_until_normal(PATIENCE).await?;
        let full_restart = self.survives_all().then(|| restarted_at.elapsed());
        self.say("reading everything back from each replica");
        let mut found = Vec::new();
        for address in self.fleet.addresses() {
            found.push(check::read_back(address, &records).await?);
        }
        self.say("comparing the states");
        let digests = check::digests(&self.fleet.addresses()).await?;
        let load = killed_at.duration_since(shared.begun);
        let durability = self.options.durability;
        Ok(Report { durability, records, load, kills, full_restart, found, digests })
    }

    const fn survives_all(&self) -> bool {
        matches!(self.options.durability, Durability::Full)
    }

    /// The end of the load: all die at once where the mode promises that they come back, and
    /// nobody otherwise. Returns when that was.
    async fn kill_all_that_may(&mut self) -> Result<Instant> {
        if !self.survives_all() {
            return Ok(Instant::now());
        }
        self.say("killing all replicas at once");
        let all: Vec<usize> = (0..self.fleet.count()).collect();
        self.fleet.kill(&all).await
    }

    fn workers(&self, shared: &Arc<Shared>) -> JoinSet<Result<(usize, Record)>> {
        let mut workers = JoinSet::new();
        for name in 0..usize::from(self.options.clients) {
            let (shared, seed) = (Arc::clone(shared), self.options.seed);
            workers.spawn(async move { Ok((name, Worker::new(&shared, name, seed)?.run().await)) });
        }
        workers
    }

    /// Lets the load run, and kills the primary as often as asked, at even distances.
    async fn kills(&mut self, shared: &Shared) -> Result<Vec<Kill>> {
        let mut kills = Vec::new();
        let load = Duration::from_secs(u64::from(self.options.seconds));
        let pause = load / (u32::from(self.options.failovers) + 1);
        for number in 1..=self.options.failovers {
            self.wait_until(shared, pause * u32::from(number)).await;
            kills.push(self.kill_some(shared, number).await?);
        }
        self.wait_until(shared, load).await;
        Ok(kills)
    }

    /// Who dies next: the primary, and where it is the worst that the mode survives, as many others
    /// as make it the largest minority.
    async fn victims(&self) -> Result<Vec<usize>> {
        let (primary, count) = (self.find_primary().await?, self.fleet.count());
        let minority = count.saturating_sub(1) / 2;
        let several = if self.survives_all() { 1 } else { minority.max(1) };
        Ok((0..several).map(|further| (primary + further) % count).collect())
    }

    /// Kills the primary, perhaps with others, waits for the rest to go on, starts what was killed
    /// again, and waits until it has everything that was committed when it was started.
    async fn kill_some(&mut self, shared: &Shared, number: u16) -> Result<Kill> {
        let victims = self.victims().await?;
        let killed_at = self.fleet.kill(&victims).await?;
        let what = format!("kill {number} ({})", names(&victims));
        self.say(&what);
        let before = shared.acknowledged.load(Ordering::Relaxed);
        while killed_at.elapsed() < DOWN_MAX
            && shared.acknowledged.load(Ordering::Relaxed) < before + 100
        {
            self.tick(shared).await;
        }
        let mut committed = 0;
        for other in (0..self.fleet.count()).filter(|other| !victims.contains(other)) {
            let info = self.fleet.info(other).await.unwrap_or_default();
            committed = committed.max(info.number("commit"));
        }
        let restarted_at = Instant::now();
        self.fleet.start_all()?;
        for victim in &victims {
            let caught_up = self.fleet.wait_for(*victim, PATIENCE, |info| {
                info.is_normal() && info.number("applied") >= committed
            });
            caught_up.await?;
        }
        Ok(Kill {
            what,
            at: killed_at.duration_since(shared.begun),
            restarted_at: restarted_at.duration_since(shared.begun),
            catch_up: restarted_at.elapsed(),
        })
    }

    async fn find_primary(&self) -> Result<usize> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some((primary, _)) = self.fleet.primary().await {
                return Ok(primary);
            }
            sleep(TICK).await;
        }
        bail!("no replica says that it is the primary")
    }

    async fn wait_until(&self, shared: &Shared, at: Duration) {
        while shared.begun.elapsed() < at {
            self.tick(shared).await;
        }
    }

    async fn tick(&self, shared: &Shared) {
        let position = u64::try_from(shared.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress.set_position(position);
        let acknowledged = shared.acknowledged.load(Ordering::Relaxed);
        self.progress.set_message(format!("{acknowledged} writes acknowledged"));
        sleep(TICK).await;
    }

    fn say(&self, what: &str) {
        say(self.progress, what);
    }
}

/// `replica 0` or `replicas 0, 1`.
fn names(replicas: &[usize]) -> String {
    let ids: Vec<_> = replicas.iter().map(ToString::to_string).collect();
    format!("replica{} {}", if ids.len() == 1 { "" } else { "s" }, ids.join(", "))
}

/// Says what happens, above the progress line if there is one.
#[expect(clippy::print_stderr, reason = "a demo talks to who watches it")]
fn say(progress: &ProgressBar, what: &str) {
    progress.suspend(|| eprintln!("{what}"));
}

async fn collect(workers: &mut JoinSet<Result<(usize, Record)>>) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while let Some(joined) = workers.join_next().await {
        records.push(joined??);
    }
    records.sort_by_key(|(name, _)| *name);
    Ok(records.into_iter().map(|(_, record)| record).collect())
}
