//! Leases: what a voter promises its primary for a while, and what the primary may make of it.

use core::time::Duration;
use std::collections::VecDeque;

use crate::{
    model::{
        time::{Instant, nanoseconds},
        types::{HeartbeatNumber, ReplicaIndex},
    },
    state::rank::nth_largest,
};

/// What a lease ends early by, besides the drift of the clocks: more than clocks are coarse.
const MARGIN: Duration = Duration::from_millis(1);

/// Heartbeats whose time is remembered. An answer to an older one brings no lease.
const SENT_MAX: usize = 64;

const MILLION: u64 = 1_000_000;

/// `time * (million + more) / (million + less)`, for clocks that drift by millionths.
fn scaled(time: Duration, more: i64, less: i64) -> Duration {
    let part = |drift: i64| u128::from(MILLION.saturating_add_signed(drift));
    let scaled = u128::from(nanoseconds(time)) * part(more) / part(less).max(1);
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
}

/// The voter's side: until when it votes for no other view, by its own clock.
///
/// Invariant: nothing but [`release`](Self::release) moves the end to an earlier time.
#[derive(Clone, Copy, Debug)]
pub struct Grants {
    until: Instant,
}

impl Grants {
    /// A voter starts at `now`, and may have forgotten a grant of `lease`: it waits as if it had
    /// given it just now, and longer by what two clocks can differ that drift by `drift_ppm`.
    #[must_use]
    pub fn forgotten(now: Instant, lease: Duration, drift_ppm: u32) -> Self {
        let drift = i64::from(drift_ppm);
        Self { until: now + scaled(lease, drift, -drift) }
    }

    /// The primary was heard at `now`, and is told that this voter keeps still for `lease`.
    pub fn grant(&mut self, now: Instant, lease: Duration) {
        self.until = self.until.max(now + lease);
    }

    /// The primary has left its view on purpose, and uses no lease any more.
    pub const fn release(&mut self) {
        self.until = Instant::ZERO;
    }

    /// Whether this voter has to keep still.
    #[must_use]
    pub fn bind(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Until when it has to.
    #[must_use]
    pub const fn until(&self) -> Instant {
        self.until
    }
}

/// The primary's side: until when a quorum votes for no other view, by the primary's own clock.
#[derive(Clone, Debug)]
pub struct Lease {
    sent: VecDeque<(HeartbeatNumber, Instant)>,
    /// Per voter, when its grant ends.
    ends: Vec<Instant>,
}

impl Lease {
    /// Nobody of so many members has granted anything yet.
    #[must_use]
    pub fn new(members: usize) -> Self {
        Self { sent: VecDeque::new(), ends: vec![Instant::ZERO; members] }
    }

    /// `heartbeat` leaves, no earlier than `now`.
    pub fn sent(&mut self, heartbeat: HeartbeatNumber, now: Instant) {
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((heartbeat, now));
    }

    /// The voter at `index` heard `heartbeat`, and grants `lease` from then on. It cannot have
    /// heard it before it was sent; the slowest clock of this replica and the fastest of the
    /// voter, both within `drift_ppm`, say how much of it is left for sure.
    pub fn granted(
        &mut self,
        index: ReplicaIndex,
        heartbeat: HeartbeatNumber,
        lease: Duration,
        drift_ppm: u32,
    ) {
        let Some((_, sent)) = self.sent.iter().find(|(number, _)| *number == heartbeat) else {
            return;
        };
        let drift = i64::from(drift_ppm);
        let end = *sent + scaled(lease, -drift, drift).saturating_sub(MARGIN);
        if let Some(known) = self.ends.get_mut(usize::from(index.0)) {
            *known = end.max(*known);
        }
    }

    /// Until when `others` of the voters besides `me` keep still.
    #[must_use]
    pub fn until(&self, me: ReplicaIndex, others: u32) -> Instant {
        if others == 0 {
            return Instant::FAR_FUTURE;
        }
        let all = self.ends.iter().zip(0_u8..).filter(|(_, index)| ReplicaIndex(*index) != me);
        nth_largest(all.map(|(end, _)| *end), others).unwrap_or(Instant::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_grant_binds_until_it_ends_and_is_never_shortened() {
        let mut grants = Grants::forgotten(at(5), Duration::ZERO, 10_000);
        assert!(!grants.bind(at(5)));
        grants.grant(at(10), TENTH);
        grants.grant(at(8), TENTH);
        assert!(grants.bind(at(109)) && !grants.bind(at(110)));
        grants.release();
        assert!(!grants.bind(at(10)));
    }

    #[test]
    fn a_restart_waits_longer_than_any_clock_measures_a_grant() {
        let grants = Grants::forgotten(at(0), TENTH, 10_000);
        assert!(grants.bind(at(102)) && !grants.bind(at(103)));
    }

    #[test]
    fn a_lease_counts_from_when_its_heartbeat_left() {
        let mut lease = Lease::new(3);
        lease.sent(HeartbeatNumber(1), at(10));
        lease.sent(HeartbeatNumber(2), at(60));
        lease.granted(ReplicaIndex(1), HeartbeatNumber(1), TENTH, 0);
        assert_eq!(lease.until(ReplicaIndex(0), 1), at(109));
        lease.granted(ReplicaIndex(2), HeartbeatNumber(2), TENTH, 0);
        assert_eq!(lease.until(ReplicaIndex(0), 1), at(159));
        assert_eq!(lease.until(ReplicaIndex(0), 2), at(109));
        lease.granted(ReplicaIndex(1), HeartbeatNumber(3), TENTH, 0);
        assert_eq!(lease.until(ReplicaIndex(0), 2), at(109), "a heartbeat that was never sent");
    }

    #[test]
    fn an_old_heartbeat_brings_nothing() {
        let mut lease = Lease::new(3);
        for number in 1..=65 {
            lease.sent(HeartbeatNumber(number), at(number));
        }
        lease.granted(ReplicaIndex(1), HeartbeatNumber(1), TENTH, 0);
        assert_eq!(lease.until(ReplicaIndex(0), 1), Instant::ZERO);
        lease.granted(ReplicaIndex(1), HeartbeatNumber(2), TENTH, 0);
        assert!(lease.until(ReplicaIndex(0), 1) > Instant::ZERO);
    }

    #[test]
    fn a_group_of_one_needs_no_grant() {
        assert_eq!(Lease::new(1).until(ReplicaIndex(0), 0), Instant::FAR_FUTURE);
    }

    proptest! {
        /// Whatever the two clocks do within the bound, the primary stops before the voter may
        /// vote: also when the voter restarts the moment after it granted.
        #[test]
        fn a_lease_ends_before_its_grant(
            lease in 1_u64..10_000_000_000,
            bound in 0_u32..100_000,
            primary in -1.0_f64..=1.0,
            voter in -1.0_f64..=1.0,
        ) {
            let rate = |share: f64| 1.0 + share * f64::from(bound) / 1e6;
            let granted = Duration::from_nanos(lease);
            let mut believed = Lease::new(3);
            believed.sent(HeartbeatNumber(1), Instant::ZERO);
            believed.granted(ReplicaIndex(1), HeartbeatNumber(1), granted, bound);
            let seconds = |at: Instant| at.since(Instant::ZERO).as_secs_f64();
            let believed = seconds(believed.until(ReplicaIndex(0), 1)) / rate(primary);
            let mut grants = Grants::forgotten(Instant::ZERO, Duration::ZERO, bound);
            grants.grant(Instant::ZERO, granted);
            prop_assert!(believed <= seconds(grants.until()) / rate(voter) + 1e-8);
            let forgotten = Grants::forgotten(Instant::ZERO, granted, bound);
            prop_assert!(believed <= seconds(forgotten.until()) / rate(voter) + 1e-8);
        }
    }
}
