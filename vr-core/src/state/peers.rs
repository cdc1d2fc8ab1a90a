//! What this replica knows of where the others stand and whether they are reachable.

use core::time::Duration;

use crate::model::{
    message::{Standing, StatusKind},
    time::Instant,
    types::{OpNumber, ReplicaIndex, ReplicaSet, View},
};

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// Said by the transport: the connection broke and did not come back.
    lost: bool,
    heard_at: Option<Instant>,
    view: View,
    standing: Option<(Standing, Instant)>,
}

/// One record per voter; beliefs only, nothing here is evidence.
#[derive(Clone, Debug)]
pub struct Peers {
    peers: Vec<Peer>,
    window: Duration,
    heartbeat_at: Option<Instant>,
    heartbeats_missed: u64,
}

impl Peers {
    /// Nothing is known yet. What was heard longer ago than `window` does not count.
    #[must_use]
    pub fn new(members: u32, window: Duration) -> Self {
        let members = usize::try_from(members).unwrap_or(0);
        Self {
            peers: vec![Peer::default(); members],
            window,
            heartbeat_at: None,
            heartbeats_missed: 0,
        }
    }

    /// A valid message arrived from `index`, whose durable view is `view`.
    pub fn heard(&mut self, index: ReplicaIndex, at: Instant, view: View) {
        if let Some(peer) = self.get_mut(index) {
            peer.heard_at = Some(at);
            peer.lost = false;
            peer.view = peer.view.max(view);
        }
    }

    /// The primary's heartbeat arrived; one is due every `interval`.
    pub fn heartbeat(&mut self, at: Instant, interval: Duration) {
        if let Some(previous) = self.heartbeat_at.replace(at) {
            let intervals = at.since(previous).as_nanos() / interval.as_nanos().max(1);
            let late = u64::try_from(intervals).unwrap_or(u64::MAX).saturating_sub(1);
            self.heartbeats_missed = self.heartbeats_missed.saturating_add(late);
        }
    }

    /// No heartbeat is expected until the next one arrived.
    pub const fn expect_no_heartbeat(&mut self) {
        self.heartbeat_at = None;
    }

    /// Heartbeats of live primaries that came a whole interval late, or not at all.
    #[must_use]
    pub const fn heartbeats_missed(&self) -> u64 {
        self.heartbeats_missed
    }

    /// `index` told where it stands.
    pub fn stands(&mut self, index: ReplicaIndex, at: Instant, standing: Standing) {
        if let Some(peer) = self.get_mut(index) {
            peer.standing = Some((standing, at));
        }
    }

    /// The transport has a way to `index`.
    pub fn connected(&mut self, index: ReplicaIndex) {
        if let Some(peer) = self.get_mut(index) {
            peer.lost = false;
        }
    }

    /// The way to `index` broke.
    pub fn disconnected(&mut self, index: ReplicaIndex) {
        if let Some(peer) = self.get_mut(index) {
            peer.lost = true;
            peer.heard_at = None;
            peer.standing = None;
        }
    }

    /// Whether the connection to `index` is known to be broken.
    #[must_use]
    pub fn is_lost(&self, index: ReplicaIndex) -> bool {
        self.get(index).is_some_and(|peer| peer.lost)
    }

    /// The voters heard of within the window, `me` included.
    #[must_use]
    pub fn heard_set(&self, me: ReplicaIndex, now: Instant) -> ReplicaSet {
        let mut set = ReplicaSet::EMPTY;
        for (peer, index) in self.peers.iter().zip(0_u8..) {
            if peer.heard_at.is_some_and(|at| now.since(at) <= self.window) {
                set.insert(ReplicaIndex(index));
            }
        }
        set.insert(me);
        set
    }

    /// Where `index` stands, if it told within the window.
    #[must_use]
    pub fn standing(&self, index: ReplicaIndex, now: Instant) -> Option<Standing> {
        let (standing, at) = self.get(index)?.standing?;
        (now.since(at) <= self.window).then_some(standing)
    }

    /// Whether `index` is believed to hear a quorum.
    #[must_use]
    pub fn is_quorum_connected(&self, index: ReplicaIndex, quorum: u32, now: Instant) -> bool {
        !self.is_lost(index)
            && self.standing(index, now).is_some_and(|standing| standing.heard.len() >= quorum)
    }

    /// The longest log that anybody told of in the latest log view told of.
    #[must_use]
    pub fn best(&self, now: Instant) -> Option<(View, OpNumber)> {
        let fresh = self.peers.iter().filter_map(|peer| peer.standing);
        fresh
            .filter(|(standing, at)| {
                let has_log =
                    matches!(standing.status, StatusKind::Normal | StatusKind::ViewChange);
                has_log && now.since(*at) <= self.window
            })
            .map(|(standing, _)| (standing.log_view, standing.op_number))
            .max()
    }

    /// Members in status normal of `view` whose log reaches beyond `above`, in order of index.
    pub fn ahead(&self, view: View, above: OpNumber) -> impl Iterator<Item = ReplicaIndex> + '_ {
        self.peers.iter().zip(0_u8..).filter_map(move |(peer, index)| {
            let (standing, _) = peer.standing?;
            let ahead = standing.status == StatusKind::Normal
                && peer.view == view
                && standing.op_number > above
                && !peer.lost;
            ahead.then_some(ReplicaIndex(index))
        })
    }

    fn get(&self, index: ReplicaIndex) -> Option<&Peer> {
        self.peers.get(usize::from(index.0))
    }

    fn get_mut(&mut self, index: ReplicaIndex) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(index.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaIndex = ReplicaIndex(0);
    const OTHER: ReplicaIndex = ReplicaIndex(1);

    fn standing(heard: ReplicaSet) -> Standing {
        Standing { log_view: View(1), op_number: OpNumber(5), status: StatusKind::Normal, heard }
    }

    #[test]
    fn what_was_heard_grows_old() {
        let mut peers = Peers::new(3, Duration::from_nanos(10));
        peers.heard(OTHER, Instant(5), View(0));
        assert!(peers.heard_set(ME, Instant(15)).contains(OTHER));
        assert!(!peers.heard_set(ME, Instant(16)).contains(OTHER));
    }

    #[test]
    fn a_heartbeat_that_does_not_come_is_counted() {
        let mut peers = Peers::new(3, Duration::from_nanos(10));
        for at in [0, 10, 21, 45] {
            peers.heartbeat(Instant(at), Duration::from_nanos(10));
        }
        assert_eq!(peers.heartbeats_missed(), 1);
        peers.expect_no_heartbeat();
        peers.heartbeat(Instant(99), Duration::from_nanos(10));
        assert_eq!(peers.heartbeats_missed(), 1);
    }

    #[test]
    fn a_broken_connection_outweighs_what_was_heard() {
        let mut peers = Peers::new(3, Duration::from_nanos(10));
        let mut heard = ReplicaSet::EMPTY;
        heard.insert(ME);
        heard.insert(OTHER);
        peers.heard(OTHER, Instant(5), View(1));
        peers.stands(OTHER, Instant(5), standing(heard));
        assert!(peers.is_quorum_connected(OTHER, 2, Instant(6)));
        assert_eq!(peers.ahead(View(1), OpNumber(4)).collect::<Vec<_>>(), [OTHER]);
        peers.disconnected(OTHER);
        assert!(!peers.is_quorum_connected(OTHER, 2, Instant(6)));
        peers.heard(OTHER, Instant(7), View(1));
        assert!(!peers.is_lost(OTHER));
    }
}
