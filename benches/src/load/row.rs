//! One run as a row: of a CSV file, and of a table for people.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use crate::load::{
    generator::Measured,
    summary::{Summary, count},
    workload::Workload,
};

/// The columns of the CSV file.
pub const CSV_HEADER: &str = "system,mode,clients,payload_bytes,read_percent,rate,seconds,\
    operations,errors,operations_per_second,mean_us,p50_us,p90_us,p99_us,p999_us,max_us,\
    peak_rss_kib";

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub system: String,
    /// How it was run.
    pub mode: String,
    /// What was asked of it.
    pub workload: Workload,
    /// How long it was measured.
    pub elapsed: Duration,
    /// Latencies of what succeeded.
    pub summary: Summary,
    /// Operations that failed.
    pub errors: u64,
    /// The most memory that each replica's process has held, in KiB; empty when replicas share
    /// this process.
    pub peak_rss_kib: Vec<u64>,
}

impl Row {
    /// What `measured` comes to.
    #[must_use]
    pub fn new(system: &str, mode: &str, workload: &Workload, measured: Measured) -> Self {
        Self {
            system: system.to_owned(),
            mode: mode.to_owned(),
            workload: workload.clone(),
            elapsed: measured.elapsed,
            summary: Summary::of(measured.latencies),
            errors: measured.errors,
            peak_rss_kib: Vec::new(),
        }
    }

    /// Operations that succeeded, a second.
    #[must_use]
    pub fn operations_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { count(self.summary.operations) / seconds } else { 0.0 }
    }

    /// The row in the order of [`CSV_HEADER`].
    #[must_use]
    pub fn to_csv(&self) -> String {
        let Self { system, mode, workload, summary, errors, .. } = self;
        let latencies =
            [summary.mean, summary.p50, summary.p90, summary.p99, summary.p999, summary.max]
                .map(|latency| format!("{:.3}", microseconds(latency)));
        let rss: Vec<String> = self.peak_rss_kib.iter().map(u64::to_string).collect();
        let Workload { clients, payload_bytes, read_percent, .. } = workload;
        let rate = workload.rate.map(|rate| rate.to_string()).unwrap_or_default();
        let (seconds, operations) = (self.elapsed.as_secs_f64(), summary.operations);
        let per_second = self.operations_per_second();
        format!(
            "{system},{mode},{clients},{payload_bytes},{read_percent},{rate},{seconds:.3},\
             {operations},{errors},{per_second:.1},{},{}",
            latencies.join(","),
            rss.join("/")
        )
    }
}

/// Appends `rows` to a file, which begins with the header.
///
/// # Errors
/// The system refused.
pub fn append_csv(path: &Path, rows: &[Row]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() == 0 {
        writeln!(file, "{CSV_HEADER}")?;
    }
    for row in rows {
        writeln!(file, "{}", row.to_csv())?;
    }
    Ok(())
}

/// `rows` for people, a Markdown table that lines up.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let heads = [
        "system", "mode", "clients", "bytes", "op/s", "p50 us", "p99 us", "p99.9 us", "max us",
        "errors", "peak MiB",
    ];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        let rss: Vec<String> =
            row.peak_rss_kib.iter().map(|kib| (kib / 1024).to_string()).collect();
        let summary = &row.summary;
        let latency = |latency: Duration| format!("{:.1}", microseconds(latency));
        vec![
            row.system.clone(),
            row.mode.clone(),
            row.workload.clients.to_string(),
            row.workload.payload_bytes.to_string(),
            format!("{:.0}", row.operations_per_second()),
            latency(summary.p50),
            latency(summary.p99),
            latency(summary.p999),
            latency(summary.max),
            row.errors.to_string(),
            rss.join("/"),
        ]
    }));
    markdown(&lines)
}

/// A Markdown table; the first line holds the heads, the first two columns are words.
#[must_use]
pub fn markdown(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < 2 { format!(" {cell:<width$} |") } else { format!(" {cell:>width$} |") }
        });
        text.push_str(&format!("|{}\n", cells.collect::<String>()));
        if at == 0 {
            let rules = widths.iter().enumerate().map(|(column, width)| {
                let (dashes, end) = ("-".repeat(width + 1), if column < 2 { "-" } else { ":" });
                format!("{dashes}{end}|")
            });
            text.push_str(&format!("|{}\n", rules.collect::<String>()));
        }
    }
    text
}

/// A duration as microseconds.
#[must_use]
pub fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let workload = Workload {
            clients: 64,
            clients_per_session: 64,
            payload_bytes: 256,
            read_percent: 10,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(2),
            rate: None,
            progress: false,
        };
        let latencies = vec![1_000, 2_000, 3_000, 4_000];
        let measured =
            Measured { latencies, elapsed: Duration::from_secs(2), ..Measured::default() };
        let row = Row::new("vr", "tcp", &workload, measured);
        Row { peak_rss_kib: vec![2048, 3072, 4096], ..row }
    }

    #[test]
    fn a_csv_row_has_a_field_for_each_column() {
        let csv = row().to_csv();
        assert_eq!(
            csv,
            "vr,tcp,64,256,10,,2.000,4,0,2.0,2.500,2.000,4.000,4.000,4.000,4.000,2048/3072/4096"
        );
        assert_eq!(csv.split(',').count(), CSV_HEADER.split(',').count());
    }

    #[test]
    fn a_file_gets_one_header_however_often_it_is_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        append_csv(&path, &[row()]).unwrap();
        append_csv(&path, &[row(), row()]).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (4, CSV_HEADER));
    }

    #[test]
    fn a_table_lines_up() {
        let text = table(&[row()]);
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(lengths.len(), 3);
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{text}");
        assert!(text.contains("| 2/3/4 |") || text.contains("2/3/4 |"), "{text}");
    }

    #[test]
    fn a_run_of_no_time_has_no_throughput() {
        assert_eq!(Row { elapsed: Duration::ZERO, ..row() }.operations_per_second(), 0.0);
    }
}
