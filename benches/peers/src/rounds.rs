//! All systems in turn, cell by cell and round by round, and what the medians come to.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;
use vr_benches::load::{
    command::run_engines,
    engines::{self, Execution},
    fleet::{Fleet as OwnFleet, Tuning},
    generator::{drive, say},
    group,
    row::{Row, append_csv, markdown, microseconds},
    summary::{median, spread_percent},
    workload::Workload,
};
use vr_core::Durability;

use crate::{
    engine::{Engine, InLoop},
    etcd::{self, Pace},
    fleet::Fleet,
    floor::Floor,
    omni::Omni,
    openraft_node, openraft10_node, plot, raft_engine_log,
    raft_rs::Raft,
    wire::Wire,
};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Engines and clients in one loop
    Engines,
    /// Whole nodes on one thread
    Memory,
    /// Processes on loopback, nothing on disk
    Tcp,
    /// Processes on loopback, synced before an operation is acknowledged
    Durable,
}

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    /// This repository
    Vr,
    /// This repository, with a service whose operations are encoded and decoded
    VrTyped,
    /// raft 0.7 of tikv
    Raft,
    /// raft 0.7 over raft-engine
    RaftEngine,
    /// omnipaxos 0.2.4
    Omni,
    /// openraft 0.9
    Openraft,
    /// openraft 0.10
    Openraft10,
    /// etcd, where its server is installed
    Etcd,
    /// The same bytes without a protocol
    Floor,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Engines, Self::Memory, Self::Tcp, Self::Durable];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Engines => "engines",
            Self::Memory => "memory",
            Self::Tcp => "tcp",
            Self::Durable => "durable",
        }
    }

    /// Who can be run so.
    const fn systems(self) -> &'static [System] {
        match self {
            Self::Engines => &[System::Vr, System::Raft, System::Omni],
            Self::Memory => &[System::Vr, System::VrTyped, System::Openraft, System::Openraft10],
            Self::Tcp => &[
                System::Vr,
                System::Raft,
                System::Omni,
                System::Openraft,
                System::Openraft10,
                System::Floor,
            ],
            Self::Durable => &[
                System::Vr,
                System::Raft,
                System::RaftEngine,
                System::Omni,
                System::Openraft,
                System::Openraft10,
                System::Etcd,
                System::Floor,
            ],
        }
    }

    /// Whether `system` is run if nobody asks for it: openraft 0.9 appends each request by itself
    /// and waits for its sync, so on disk it is orders of magnitude behind, and times out.
    fn is_usual(self, system: System) -> bool {
        (self, system) != (Self::Durable, System::Openraft)
    }
}

impl System {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vr => "vr",
            Self::VrTyped => "vr, typed",
            Self::Raft => Raft::NAME,
            Self::RaftEngine => raft_engine_log::NAME,
            Self::Omni => Omni::NAME,
            Self::Openraft => openraft_node::NAME,
            Self::Openraft10 => openraft10_node::NAME,
            Self::Etcd => etcd::NAME,
            Self::Floor => Floor::NAME,
        }
    }

    /// Whether it is neither ours nor the floor.
    const fn is_peer(self) -> bool {
        !matches!(self, Self::Vr | Self::VrTyped | Self::Floor)
    }

    /// Its name on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Vr => "vr",
            Self::VrTyped => "vr-typed",
            Self::Raft => "raft",
            Self::RaftEngine => "raft-engine",
            Self::Omni => "omni",
            Self::Openraft => "openraft",
            Self::Openraft10 => "openraft10",
            Self::Etcd => "etcd",
            Self::Floor => "floor",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What to compare, and how thoroughly.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Which kinds of run; all if it is not said
    #[arg(long, value_name = "MODE,..", value_delimiter = ',')]
    mode: Vec<Mode>,
    /// Which systems; all that can be run so if it is not said
    #[arg(long, value_name = "SYSTEM,..", value_delimiter = ',')]
    system: Vec<System>,
    /// Clients, each with one operation in flight
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,16,64,256,1024")]
    clients: Vec<usize>,
    /// Bytes of each operation
    #[arg(long, value_name = "BYTES,..", value_delimiter = ',', default_value = "256")]
    payload: Vec<usize>,
    /// How often every system is run in each cell
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// How long each run is measured
    #[arg(long, value_name = "SECONDS", default_value = "2",
          value_parser = vr_benches::load::workload::seconds)]
    seconds: Duration,
    /// Three rounds of half a second, at 1, 64 and 256 clients: a few minutes
    #[arg(long)]
    quick: bool,
    // All ask their sockets as busily as ours.
    #[command(flatten)]
    tuning: Tuning,
    /// Where the replicas' directories are made
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where rows.csv, table.md and plot.svg are written
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    out: PathBuf,
}

/// One kind of run with one workload.
#[derive(Clone, Debug)]
pub struct Cell {
    pub mode: Mode,
    pub clients: usize,
    pub payload: usize,
    /// Per system: its runs.
    pub runs: Vec<(System, Vec<Row>)>,
}

impl Cell {
    /// The median throughput and latency of a system; `None` if it was not run.
    pub fn medians(&self, system: System) -> Option<(f64, f64)> {
        let (_, rows) = self.runs.iter().find(|(of, _)| *of == system)?;
        let throughput: Vec<f64> = rows.iter().map(Row::operations_per_second).collect();
        let latency: Vec<f64> = rows.iter().map(|row| microseconds(row.summary.p50)).collect();
        (!rows.is_empty()).then(|| (median(&throughput), median(&latency)))
    }

    fn peers(&self) -> impl Iterator<Item = (System, (f64, f64))> {
        let peers = self.runs.iter().map(|(system, _)| *system);
        let peers = peers.filter(|system| system.is_peer());
        peers.filter_map(|system| Some((system, self.medians(system)?)))
    }

    fn line(&self) -> Vec<String> {
        let best = self.peers().max_by(|(_, one), (_, other)| one.0.total_cmp(&other.0));
        let quickest = self.peers().map(|(_, (_, latency))| latency).min_by(f64::total_cmp);
        let (ours, latency) = self.medians(System::Vr).unwrap_or_default();
        let own_runs = self.runs.iter().find(|(system, _)| *system == System::Vr);
        let spread: Vec<f64> = own_runs
            .map(|(_, rows)| rows.iter().map(Row::operations_per_second).collect())
            .unwrap_or_default();
        let floor = self.medians(System::Floor);
        let none = || "-".to_owned();
        vec![
            self.mode.name().to_owned(),
            best.map_or_else(none, |(system, _)| system.name().to_owned()),
            self.clients.to_string(),
            self.payload.to_string(),
            format!("{ours:.0}"),
            format!("{:.0} %", spread_percent(&spread)),
            best.map_or_else(none, |(_, (theirs, _))| format!("{theirs:.0}")),
            best.map_or_else(none, |(_, (theirs, _))| format!("{:.2}", ours / theirs)),
            floor.map_or_else(none, |(floor, _)| format!("{floor:.0}")),
            floor.map_or_else(none, |(floor, _)| format!("{:.2}", ours / floor)),
            format!("{latency:.1}"),
            quickest.map_or_else(none, |theirs| format!("{theirs:.1}")),
            quickest.map_or_else(none, |theirs| format!("{:.2}", latency / theirs)),
        ]
    }
}

const HEADS: [&str; 13] = [
    "mode",
    "best peer",
    "clients",
    "bytes",
    "vr op/s",
    "spread",
    "peer op/s",
    "ratio",
    "floor op/s",
    "of floor",
    "vr p50 us",
    "quickest peer",
    "ratio",
];

/// Runs everything, prints the table, and writes the files.
pub async fn run(mut options: Options) -> anyhow::Result<()> {
    if options.quick {
        options.clients = vec![1, 64, 256];
        options.rounds = 3;
        options.seconds = Duration::from_millis(500);
    }
    if options.mode.is_empty() {
        options.mode = Mode::ALL.to_vec();
    }
    std::fs::create_dir_all(&options.out)?;
    let csv = options.out.join("rows.csv");
    if csv.exists() {
        std::fs::remove_file(&csv)?;
    }
    let mut cells = Vec::new();
    for mode in options.mode.iter().copied() {
        let systems = wanted(&options, mode);
        for payload in options.payload.iter().copied() {
            for clients in options.clients.iter().copied() {
                let runs = systems.iter().map(|system| (*system, Vec::new())).collect();
                let mut cell = Cell { mode, clients, payload, runs };
                measure(&options, &mut cell, &csv).await?;
                println!("{}", markdown(&[HEADS.map(str::to_owned).to_vec(), cell.line()]));
                cells.push(cell);
            }
        }
    }
    let mut lines = vec![HEADS.map(str::to_owned).to_vec()];
    lines.extend(cells.iter().map(Cell::line));
    let table = format!("{}\n{}", markdown(&lines), markdown(&everyone(&cells)));
    std::fs::write(options.out.join("table.md"), &table)?;
    std::fs::write(options.out.join("plot.svg"), plot::svg(&cells))?;
    println!("{table}");
    Ok(())
}

/// A line for each system and cell.
fn everyone(cells: &[Cell]) -> Vec<Vec<String>> {
    let heads = ["mode", "system", "clients", "bytes", "op/s", "spread", "p50 us", "p99 us"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for cell in cells {
        for (system, rows) in &cell.runs {
            let Some((throughput, latency)) = cell.medians(*system) else { continue };
            let all: Vec<f64> = rows.iter().map(Row::operations_per_second).collect();
            let tails: Vec<f64> = rows.iter().map(|row| microseconds(row.summary.p99)).collect();
            lines.push(vec![
                cell.mode.name().to_owned(),
                system.name().to_owned(),
                cell.clients.to_string(),
                cell.payload.to_string(),
                format!("{throughput:.0}"),
                format!("{:.0} %", spread_percent(&all)),
                format!("{latency:.1}"),
                format!("{:.1}", median(&tails)),
            ]);
        }
    }
    lines
}

/// Who is run so: who was asked for, and is there.
fn wanted(options: &Options, mode: Mode) -> Vec<System> {
    let is_wanted = |system: &System| match options.system.as_slice() {
        [] => mode.is_usual(*system),
        named => named.contains(system),
    };
    let mut systems = mode.systems().to_vec();
    systems.retain(is_wanted);
    etcd::drop_if_missing(&mut systems);
    systems
}

async fn measure(options: &Options, cell: &mut Cell, csv: &Path) -> anyhow::Result<()> {
    let (mode, clients, payload) = (cell.mode, cell.clients, cell.payload);
    let workload = Workload {
        clients,
        clients_per_session: 64,
        payload_bytes: payload,
        read_percent: 0,
        warm_up: options.seconds / 4,
        duration: options.seconds,
        rate: None,
        progress: false,
    };
    for round in 1..=options.rounds {
        for (system, rows) in &mut cell.runs {
            let row = run_one(options, mode, *system, &workload).await?;
            let (name, rate) = (system.name(), row.operations_per_second());
            let p50 = microseconds(row.summary.p50);
            say(&format!(
                "  {}, {clients} clients, {payload} bytes, round {round}: {name} {rate:.0} op/s, \
                 p50 {p50:.1} us",
                mode.name()
            ));
            if row.errors > 0 {
                say(&format!("  {} operations of {name} failed", row.errors));
            }
            append_csv(csv, std::slice::from_ref(&row))?;
            rows.push(row);
        }
    }
    Ok(())
}

async fn run_one(
    options: &Options,
    mode: Mode,
    system: System,
    workload: &Workload,
) -> anyhow::Result<Row> {
    let mut peak_rss_kib = Vec::new();
    let measured = match (mode, system) {
        (Mode::Engines, System::Vr) => {
            run_engines(Durability::ViewOnly, Execution::Counted, workload)?
        }
        (Mode::Engines, System::Raft) => in_loop::<Raft>(workload)?,
        (Mode::Engines, System::Omni) => in_loop::<Omni>(workload)?,
        (Mode::Memory, System::Vr) => group::run_raw(Durability::ViewOnly, workload).await?,
        (Mode::Memory, System::VrTyped) => group::run_typed(Durability::ViewOnly, workload).await?,
        (Mode::Memory, System::Openraft) => openraft_node::run_in_memory(workload).await?,
        (Mode::Memory, System::Openraft10) => openraft10_node::run_in_memory(workload).await?,
        (Mode::Tcp | Mode::Durable, System::Vr) => {
            let durability =
                if mode == Mode::Durable { Durability::Full } else { Durability::ViewOnly };
            let dir = options.dir.as_deref();
            let arguments = options.tuning.arguments();
            let fleet = OwnFleet::start_with(3, durability, dir, arguments).await?;
            let mut clients = Vec::new();
            for _ in 0..workload.sessions() {
                clients.push(fleet.client().await?);
            }
            let measured = drive(&clients, workload).await;
            peak_rss_kib = fleet.peak_rss_kib();
            measured
        }
        (Mode::Durable, System::Etcd) => {
            let fleet = etcd::start(Pace::USUAL, options.dir.as_deref())?;
            let measured = fleet.run::<etcd::Session>(workload).await?;
            peak_rss_kib = fleet.peak_rss_kib();
            measured
        }
        (Mode::Tcp | Mode::Durable, peer) => {
            let is_durable = mode == Mode::Durable;
            let fleet =
                Fleet::start(peer, is_durable, options.tuning.busy_poll, options.dir.as_deref())?;
            let measured = fleet.run::<Wire>(workload).await?;
            peak_rss_kib = fleet.peak_rss_kib();
            measured
        }
        (Mode::Engines | Mode::Memory, _) => bail!("{} is not run so", system.name()),
    };
    if let Some(error) = &measured.error {
        say(&format!("  {}: {error}", system.name()));
    }
    let row = Row::new(system.name(), mode.name(), workload, measured);
    Ok(Row { peak_rss_kib, ..row })
}

fn in_loop<E: Engine>(
    workload: &Workload,
) -> anyhow::Result<vr_benches::load::generator::Measured> {
    engines::drive(&mut InLoop::<E>::start()?, workload)
}
