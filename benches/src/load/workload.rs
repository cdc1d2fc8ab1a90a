//! How much is asked for, and for how long: the options that every kind of load has.

use std::time::Duration;

/// A load, as the command line says it.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Options {
    /// Clients, each with one operation in flight; several numbers make several runs
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,16,64,256,1024")]
    pub clients: Vec<usize>,
    /// Bytes of each operation; several numbers make several runs
    #[arg(long, value_name = "BYTES,..", value_delimiter = ',', default_value = "256")]
    pub payload: Vec<usize>,
    /// How many of 100 operations are linearizable queries
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=100))]
    pub reads: u32,
    /// How long each run is measured
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub seconds: Duration,
    /// How long each run goes on before it is measured
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub warm_up: Duration,
    /// Operations a second, begun at equal distances whatever the group does; without it each
    /// client begins its next operation when it has its reply
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<u32>,
    /// Clients that share a session, and so a connection
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub clients_per_session: usize,
    /// Where to append the rows, as CSV
    #[arg(long, value_name = "FILE")]
    pub csv: Option<std::path::PathBuf>,
    /// No progress on standard error
    #[arg(long)]
    pub quiet: bool,
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Clients, each with one operation in flight.
    pub clients: usize,
    /// Clients that share a session.
    pub clients_per_session: usize,
    /// Bytes of each operation.
    pub payload_bytes: usize,
    /// How many of 100 operations are queries.
    pub read_percent: u32,
    /// How long the load goes on before it is measured.
    pub warm_up: Duration,
    /// How long it is measured.
    pub duration: Duration,
    /// Operations a second over all clients; `None` for a closed loop.
    pub rate: Option<u32>,
    /// Whether to say every second how it goes.
    pub progress: bool,
}

impl Options {
    /// Every run that the options ask for.
    #[must_use]
    pub fn workloads(&self) -> Vec<Workload> {
        let sizes = self.payload.iter();
        let cells =
            sizes.flat_map(|bytes| self.clients.iter().map(move |clients| (clients, bytes)));
        let workload = |(clients, bytes): (&usize, &usize)| Workload {
            clients: (*clients).max(1),
            clients_per_session: self.clients_per_session.max(1),
            payload_bytes: *bytes,
            read_percent: self.reads,
            warm_up: self.warm_up,
            duration: self.seconds,
            rate: self.rate,
            progress: !self.quiet,
        };
        cells.map(workload).collect()
    }
}

impl Workload {
    /// A closed loop of writes of 256 bytes, 64 clients to a session, without a warm-up.
    #[must_use]
    pub const fn of_writes(clients: usize, duration: Duration) -> Self {
        Self {
            clients,
            clients_per_session: 64,
            payload_bytes: 256,
            read_percent: 0,
            warm_up: Duration::ZERO,
            duration,
            rate: None,
            progress: false,
        }
    }

    /// Sessions, or connections, that the clients share.
    #[must_use]
    pub const fn sessions(&self) -> usize {
        self.clients.div_ceil(self.clients_per_session)
    }
}

/// A duration in seconds, such as `0.5`.
///
/// # Errors
/// In words, what is wrong with it.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(words: &[&str]) -> Result<Options, clap::Error> {
        let line = ["load"].into_iter().chain(words.iter().copied());
        Line::try_parse_from(line).map(|line| line.options)
    }

    #[test]
    fn lists_make_a_run_for_each_pair() {
        let options = parsed(&["--clients", "1,64", "--payload", "256,4096"]).unwrap();
        let runs: Vec<_> =
            options.workloads().iter().map(|run| (run.clients, run.payload_bytes)).collect();
        assert_eq!(runs, [(1, 256), (64, 256), (1, 4096), (64, 4096)]);
    }

    #[test]
    fn a_fraction_of_a_second_is_a_duration() {
        let options = parsed(&["--seconds", "0.25", "--warm-up", "0"]).unwrap();
        assert_eq!(
            (options.seconds, options.warm_up),
            (Duration::from_millis(250), Duration::ZERO)
        );
        assert!(parsed(&["--seconds", "-1"]).is_err());
        assert!(parsed(&["--seconds", "soon"]).is_err());
    }

    #[test]
    fn more_reads_than_operations_are_refused() {
        assert_eq!(parsed(&["--reads", "100"]).unwrap().reads, 100);
        assert!(parsed(&["--reads", "101"]).is_err());
    }

    #[test]
    fn clients_share_sessions_and_the_last_may_have_fewer() {
        let options = parsed(&["--clients", "1,64,65", "--clients-per-session", "64"]).unwrap();
        let sessions: Vec<_> = options.workloads().iter().map(Workload::sessions).collect();
        assert_eq!(sessions, [1, 1, 2]);
    }
}
