//! Exact latencies: every one is kept, and percentiles are read from the sorted list.

use std::time::Duration;

/// What the latencies of one run come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many there are.
    pub operations: u64,
    /// Their mean.
    pub mean: Duration,
    /// Half of them are at most this.
    pub p50: Duration,
    /// Nine of ten are at most this.
    pub p90: Duration,
    /// 99 of 100 are at most this.
    pub p99: Duration,
    /// 999 of 1000 are at most this.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

impl Summary {
    /// Sorts `nanoseconds`, one number for each operation, and reads off what is wanted.
    #[must_use]
    pub fn of(mut nanoseconds: Vec<u64>) -> Self {
        nanoseconds.sort_unstable();
        let operations = u64::try_from(nanoseconds.len()).unwrap_or(u64::MAX);
        let sum: u128 = nanoseconds.iter().map(|latency| u128::from(*latency)).sum();
        let mean = sum.checked_div(u128::from(operations)).unwrap_or_default();
        let at = |permille| Duration::from_nanos(ranked(&nanoseconds, permille));
        Self {
            operations,
            mean: Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: at(1000),
        }
    }
}

/// The smallest number that at least `permille` of `sorted` do not exceed; 0 if there is none.
fn ranked(sorted: &[u64], permille: usize) -> u64 {
    let rank = sorted.len().saturating_mul(permille).div_ceil(1000);
    rank.checked_sub(1).and_then(|at| sorted.get(at)).copied().unwrap_or_default()
}

/// The middle of `values`, or the mean of the two in the middle; 0 if there is none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
    match sorted.len() % 2 {
        1 => at(middle),
        _ => f64::midpoint(at(middle.saturating_sub(1)), at(middle)),
    }
}

/// How far `values` lie apart: (largest - smallest) / median, in percent.
#[must_use]
pub fn spread_percent(values: &[f64]) -> f64 {
    let middle = median(values);
    if middle <= 0.0 {
        return 0.0;
    }
    let largest = values.iter().copied().fold(f64::MIN, f64::max);
    let smallest = values.iter().copied().fold(f64::MAX, f64::min);
    (largest - smallest) / middle * 100.0
}

/// A number of things as a floating-point number.
#[must_use]
#[expect(clippy::as_conversions, reason = "no run has 2^52 operations, and a report rounds anyway")]
pub const fn count(things: u64) -> f64 {
    things as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanoseconds(count: u64) -> Duration {
        Duration::from_nanos(count)
    }

    #[test]
    fn percentiles_are_numbers_that_were_measured() {
        let summary = Summary::of((1..=1000).rev().collect());
        assert_eq!(summary.operations, 1000);
        assert_eq!(summary.mean, nanoseconds(500));
        let read = [summary.p50, summary.p90, summary.p99, summary.p999, summary.max];
        assert_eq!(read, [500, 900, 990, 999, 1000].map(nanoseconds));
    }

    #[test]
    fn one_latency_is_every_percentile() {
        let summary = Summary::of(vec![7]);
        assert_eq!(
            (summary.p50, summary.p999, summary.max),
            (nanoseconds(7), nanoseconds(7), nanoseconds(7))
        );
    }

    #[test]
    fn no_latency_is_zero() {
        assert_eq!(Summary::of(Vec::new()), Summary::default());
    }

    #[test]
    fn a_tail_of_one_in_a_hundred_is_in_the_p99_only_from_the_hundredth_on() {
        let mut latencies = vec![1; 99];
        latencies.push(50);
        let summary = Summary::of(latencies);
        assert_eq!((summary.p99, summary.p999), (nanoseconds(1), nanoseconds(50)));
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!([median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])], [2.0, 2.5]);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        assert_eq!(spread_percent(&[90.0, 100.0, 110.0]), 20.0);
        assert_eq!(spread_percent(&[]), 0.0);
    }
}
