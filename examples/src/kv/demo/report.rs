//! What a demo has shown, as a table.

use core::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use vr_core::Durability;

use crate::kv::demo::{check::Found, load::Record};

/// One kill and what followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// What was killed, in words.
    pub what: String,
    /// When, since the load began.
    pub at: Duration,
    /// When it was started again, since the load began.
    pub restarted_at: Duration,
    /// How long until it was up and had everything again.
    pub catch_up: Duration,
}

/// Everything that a demo has measured.
#[derive(Debug)]
pub struct Report {
    /// What the replicas kept on disk.
    pub durability: Durability,
    /// What the clients did, one record each.
    pub records: Vec<Record>,
    /// How long the load ran.
    pub load: Duration,
    /// The kills during the load, in order.
    pub kills: Vec<Kill>,
    /// From starting all processes, after all were killed, until all served again; `None` if they
    /// were not.
    pub full_restart: Option<Duration>,
    /// What reading back from each replica has shown.
    pub found: Vec<Found>,
    /// Each replica's op and digest.
    pub digests: Vec<String>,
}

impl Report {
    /// Whether nothing was lost, nothing applied twice, and all states are the same.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lost() == 0 && self.doubled() == 0 && self.digests_equal()
    }

    /// Acknowledged writes that some replica, or some read, did not show.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let reads: u64 = self.records.iter().map(|record| record.wrong_reads).sum();
        reads + self.found.iter().map(|found| found.lost).max().unwrap_or(0)
    }

    /// Operations that some replica shows to be applied twice.
    #[must_use]
    pub fn doubled(&self) -> u64 {
        self.found.iter().map(|found| found.doubled).max().unwrap_or(0)
    }

    /// Whether all replicas have the same digest at the same op.
    #[must_use]
    pub fn digests_equal(&self) -> bool {
        let mut digests = self.digests.iter();
        let first = digests.next();
        first.is_some() && digests.all(|digest| Some(digest) == first)
    }

    fn sum(&self, of: impl Fn(&Record) -> u64) -> u64 {
        self.records.iter().map(of).sum()
    }

    /// Per kill: the longest time without an acknowledged write while the replica was down, and
    /// the time to fail over.
    fn gaps(&self) -> Vec<(Duration, Duration)> {
        let all = self.records.iter().flat_map(|record| &record.writes);
        let time = Duration::from_micros;
        let mut writes: Vec<_> = all.map(|(sent, at)| (time(*at), time(*sent))).collect();
        writes.sort_unstable();
        let gap = |kill| (longest_gap(&writes, kill), fail_over(&writes, kill));
        self.kills.iter().map(gap).collect()
    }
}

/// The longest time without an acknowledged write that touches the time from the kill to the
/// restart; `writes` are times of acknowledging, ascending, and of sending.
fn longest_gap(writes: &[(Duration, Duration)], kill: &Kill) -> Duration {
    let pairs = writes.iter().zip(writes.iter().skip(1)).map(|((from, _), (to, _))| (from, to));
    let around = pairs.filter(|(from, to)| **to > kill.at && **from < kill.restarted_at);
    around.map(|(from, to)| to.saturating_sub(*from)).max().unwrap_or(Duration::MAX)
}

/// From the kill to the first acknowledgement of a write that was sent after it: no answer that
/// was on its way already is taken for one of the new primary.
fn fail_over(writes: &[(Duration, Duration)], kill: &Kill) -> Duration {
    let first = writes.iter().find(|(_, sent)| *sent > kill.at);
    first.map_or(Duration::MAX, |(at, _)| at.saturating_sub(kill.at))
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

fn millis(time: Duration) -> String {
    if time == Duration::MAX {
        return "never".to_owned();
    }
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn verdict(good: bool) -> &'static str {
    if good { "ok" } else { "WRONG" }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display| {
            writeln!(f, "  {name:<44}{value:>16}")
        };
        let acknowledged = self.sum(|record| record.acknowledged);
        row(f, "durability", &self.durability)?;
        row(f, "operations", &self.sum(|record| record.operations))?;
        row(f, "acknowledged", &acknowledged)?;
        row(f, "outcome unknown", &self.sum(|record| record.unknown))?;
        row(f, "reads without an answer", &self.sum(|record| record.unanswered))?;
        row(f, "refused, not executed", &self.sum(|record| record.refused))?;
        let seconds = u64::try_from(self.load.as_millis().max(1)).unwrap_or(u64::MAX);
        let per_second = acknowledged.saturating_mul(1000) / seconds;
        row(f, "throughput", &format!("{per_second} op/s"))?;
        self.fmt_latencies(f)?;
        let gaps = self.gaps();
        for (kill, (gap, _)) in self.kills.iter().zip(&gaps) {
            row(f, &format!("longest gap without a write, {}", kill.what), &millis(*gap))?;
            row(f, "  time to catch up after its restart", &millis(kill.catch_up))?;
        }
        if let Some(time) = median(gaps.into_iter().map(|(_, fail_over)| fail_over).collect()) {
            row(f, "fail-over, median", &millis(time))?;
        }
        if let Some(time) = self.full_restart {
            row(f, "all killed at once, serving again after", &millis(time))?;
        }
        let (lost, doubled) = (self.lost(), self.doubled());
        let judged = |count: u64| format!("{count} {}", verdict(count == 0));
        row(f, "acknowledged writes lost", &judged(lost))?;
        row(f, "operations applied twice", &judged(doubled))?;
        let equal = if self.digests_equal() { "equal" } else { "different" };
        row(f, "state digests", &format!("{equal} {}", verdict(self.digests_equal())))
    }
}

impl Report {
    fn fmt_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(mut all) = Histogram::<u64>::new(3) else { return Ok(()) };
        for record in &self.records {
            // The sum grows to whatever range a part has, so nothing can be refused.
            let _ = all.add(&record.latencies);
        }
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let time = Duration::from_micros(all.value_at_quantile(quantile));
            writeln!(f, "  {name:<44}{:>16}", millis(time))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn answers_already_on_their_way_do_not_end_a_fail_over() {
        let sent_and_acknowledged = [(0, 10), (5, 11), (8, 12), (9, 61), (13, 60), (300, 400)];
        let mut writes = sent_and_acknowledged.map(|(sent, at)| (ms(at), ms(sent)));
        writes.sort_unstable();
        let what = "kill 1".to_owned();
        let kill = Kill { what, at: ms(10), restarted_at: ms(61), catch_up: ms(0) };
        assert_eq!(fail_over(&writes, &kill), ms(50));
        assert_eq!(longest_gap(&writes, &kill), ms(48));
    }

    #[test]
    fn one_different_digest_is_enough() {
        let report = |digests: &[&str]| Report {
            durability: Durability::Full,
            records: Vec::new(),
            load: ms(1),
            kills: Vec::new(),
            full_restart: Some(ms(1)),
            found: Vec::new(),
            digests: digests.iter().map(|digest| (*digest).to_owned()).collect(),
        };
        assert!(report(&["5 a", "5 a"]).is_good());
        assert!(!report(&["5 a", "5 a", "5 b"]).is_good());
        assert!(!report(&[]).is_good());
    }
}
