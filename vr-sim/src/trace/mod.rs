//! What happened, in order: a hash over everything, and as many of the events as are asked for.

pub mod detail;
pub mod event;
pub mod json;
pub mod output;
pub mod picture;
pub mod recording;
pub mod text;

use core::hash::{Hash, Hasher};

use vr_core::model::{message::Envelope, time::Instant, types::ReplicaId};

pub use crate::trace::event::{Event, Loss, Packet};
use crate::trace::{
    detail::detail_of,
    event::Standing,
    recording::{Recorded, Recording},
};

/// How many events are kept to be printed when something fails.
const EVENTS_KEPT: usize = 200;

/// How many events a recording keeps: about what ten minutes of a busy group bring, and a few
/// hundred megabytes.
pub const RECORDED_EVENTS_MAX: usize = 500_000;

/// The events of a run: all of them in the fingerprint, the last ones in full.
#[derive(Debug)]
pub struct Trace {
    fingerprint: Fingerprint,
    count: u64,
    recording: Recording,
    about: Option<About>,
}

/// What a recording is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The run, in a line.
    pub title: String,
    /// The members of the group, in order: the primary of a view is the member at view mod n.
    pub replicas: Vec<ReplicaId>,
}

impl Default for Trace {
    fn default() -> Self {
        let recording = Recording::new(EVENTS_KEPT);
        Self { fingerprint: Fingerprint::default(), count: 0, recording, about: None }
    }
}

impl Trace {
    /// Keeps the latest [`RECORDED_EVENTS_MAX`] events from now on, with all numbers of messages
    /// and of replicas. The fingerprint does not change by that.
    pub fn keep_all(&mut self, about: About) {
        self.recording.set_max(RECORDED_EVENTS_MAX);
        self.about = Some(about);
    }

    /// Whether all events are kept.
    #[must_use]
    pub const fn keeps_all(&self) -> bool {
        self.about.is_some()
    }

    /// What the recording is of.
    #[must_use]
    pub fn about(&self) -> About {
        self.about.clone().unwrap_or_default()
    }

    /// Adds an event that happened at `at`.
    pub fn record(&mut self, at: Instant, event: Event) {
        self.record_with(at, event, String::new());
    }

    /// Adds that `envelope` was given to the network as `packet`.
    pub fn record_sent(&mut self, at: Instant, packet: Packet, envelope: &Envelope) {
        let detail = if self.keeps_all() { detail_of(envelope) } else { String::new() };
        self.record_with(at, Event::Sent(packet), detail);
    }

    fn record_with(&mut self, at: Instant, event: Event, detail: String) {
        at.hash(&mut self.fingerprint);
        event.hash(&mut self.fingerprint);
        self.count += 1;
        self.recording.push(Recorded { at, event, detail });
    }

    /// Adds the numbers of a replica to the recording, if they are news. They are no event: a run
    /// has the same fingerprint with and without a recording.
    pub fn says(&mut self, at: Instant, standing: Standing) {
        if self.keeps_all() && self.recording.last_said(standing.replica) != Some(standing) {
            let event = Event::Says(standing);
            self.recording.push(Recorded { at, event, detail: String::new() });
        }
    }

    /// Adds that the run ends by a panic, unless it is known by a better word why it failed.
    pub(crate) fn panicked(&mut self) {
        let told = |event: &Event| matches!(event, Event::Violated(_) | Event::Failed(_));
        if !self.kept().any(|recorded| told(&recorded.event)) {
            let at = self.recording.events.back().map_or(Instant::ZERO, |recorded| recorded.at);
            self.record(at, Event::Failed("a panic ended the run".to_owned()));
        }
    }

    /// A hash over all events so far; equal for equal runs.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.finish()
    }

    /// How many events there were.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The events that are kept, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &Recorded> {
        self.recording.events.iter()
    }

    /// How many older events are not kept.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.recording.dropped
    }

    /// Of the events that are not kept, those that say how things stood then.
    #[must_use]
    pub fn standing(&self) -> Vec<&Recorded> {
        self.recording.standing()
    }

    /// The last `lines` events in words, oldest first.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let events = self.kept().filter(|recorded| !matches!(recorded.event, Event::Says(_)));
        let events: Vec<&Recorded> = events.collect();
        let skipped = events.len().saturating_sub(lines.min(EVENTS_KEPT));
        let mut text = String::new();
        for Recorded { at, event, detail: _ } in events.into_iter().skip(skipped) {
            text.push_str(&format!("{:>14} {event}\n", at.to_string()));
        }
        text
    }
}

/// A hash that is the same in every build: multiply, rotate, fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (place, byte) in word.iter_mut().zip(chunk) {
                *place = *byte;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_depends_on_the_order_of_events() {
        let trace = |notes: [&str; 2]| {
            let mut trace = Trace::default();
            for note in notes {
                trace.record(Instant::ZERO, Event::Note(note.into()));
            }
            trace.fingerprint()
        };
        assert_eq!(trace(["a", "b"]), trace(["a", "b"]));
        assert_ne!(trace(["a", "b"]), trace(["b", "a"]));
    }

    #[test]
    fn the_tail_is_bounded() {
        let mut trace = Trace::default();
        for number in 0..1000 {
            trace.record(Instant(number), Event::Note(number.to_string()));
        }
        assert_eq!(trace.count(), 1000);
        assert_eq!(trace.tail(usize::MAX).lines().count(), EVENTS_KEPT);
        assert!(trace.tail(1).trim_end().ends_with("999"));
    }
}
