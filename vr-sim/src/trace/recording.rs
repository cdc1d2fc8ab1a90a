//! Events that are kept: a bounded number of the latest, and how things stood before them.

use std::collections::{BTreeMap, VecDeque};

use vr_core::model::{
    time::Instant,
    types::{OpNumber, ReplicaId},
};

use crate::{
    actor::Actor,
    trace::event::{Event, Fate, Standing},
};

/// An event, when it happened, and for a message its numbers in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When it happened.
    pub at: Instant,
    /// What happened.
    pub event: Event,
    /// What a message says besides its [`Packet`](crate::trace::event::Packet); empty otherwise,
    /// and when nobody asked for a recording.
    pub detail: String,
}

/// The latest events, and of the older ones those that still hold.
#[derive(Debug)]
pub(crate) struct Recording {
    events_max: usize,
    pub(crate) events: VecDeque<Recorded>,
    pub(crate) dropped: u64,
    standing: BTreeMap<Key, Recorded>,
    said: BTreeMap<ReplicaId, Standing>,
}

/// Of the events with one key only the latest says how things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Life(Actor),
    Pause(Actor),
    Storage(Actor),
    Link(Actor, Actor),
    Says(ReplicaId),
    Stored(ReplicaId),
    Applied(ReplicaId),
    Verdict,
}

impl Recording {
    pub(crate) const fn new(events_max: usize) -> Self {
        Self {
            events_max,
            events: VecDeque::new(),
            dropped: 0,
            standing: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    /// Keeps so many events from now on.
    pub(crate) const fn set_max(&mut self, events_max: usize) {
        self.events_max = events_max;
    }

    pub(crate) fn push(&mut self, recorded: Recorded) {
        if let Event::Says(standing) = recorded.event {
            self.said.insert(standing.replica, standing);
        }
        self.events.push_back(recorded);
        while self.events.len() > self.events_max {
            self.dropped += 1;
            if let Some(oldest) = self.events.pop_front() {
                self.remember(oldest);
            }
        }
    }

    /// Of the events that were dropped, those that say how things stood, in order of time.
    pub(crate) fn standing(&self) -> Vec<&Recorded> {
        let mut standing: Vec<&Recorded> = self.standing.values().collect();
        standing.sort_by_key(|recorded| recorded.at);
        standing
    }

    /// The numbers that `replica` said last.
    pub(crate) fn last_said(&self, replica: ReplicaId) -> Option<Standing> {
        self.said.get(&replica).copied()
    }

    fn remember(&mut self, dropped: Recorded) {
        if dropped.event == Event::Healed {
            self.standing.retain(|key, _| !matches!(key, Key::Link(..)));
        }
        match key_of(&dropped.event) {
            // The first verdict is the one that counts.
            Some(Key::Verdict) => {
                self.standing.entry(Key::Verdict).or_insert(dropped);
            }
            Some(key) => {
                self.standing.insert(key, dropped);
            }
            None => {}
        }
    }
}

fn key_of(event: &Event) -> Option<Key> {
    match event {
        Event::Process(actor, fate) => Some(match fate {
            Fate::Started
            | Fate::Crashed
            | Fate::CrashedSilently
            | Fate::Stopped(_)
            | Fate::Refused(_) => Key::Life(*actor),
            Fate::Paused | Fate::Resumed => Key::Pause(*actor),
            Fate::StorageStalled | Fate::StorageResumed => Key::Storage(*actor),
            Fate::Wiped => return None,
        }),
        Event::Cut(from, to) | Event::Mended(from, to) => Some(Key::Link(*from, *to)),
        Event::Says(standing) => Some(Key::Says(standing.replica)),
        Event::Stored { replica, .. } => Some(Key::Stored(*replica)),
        Event::Applied { replica, op_number, .. } => {
            (*op_number > OpNumber::ZERO).then_some(Key::Applied(*replica))
        }
        Event::Violated(_) => Some(Key::Verdict),
        Event::Sent(_)
        | Event::Delivered(_)
        | Event::Lost(..)
        | Event::Held(_)
        | Event::Connected(..)
        | Event::Disconnected(..)
        | Event::Answered(..)
        | Event::Clogged(..)
        | Event::Partitioned(_)
        | Event::Healed
        | Event::Disk(..)
        | Event::Failed(_)
        | Event::Note(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(at: u64, event: Event) -> Recorded {
        Recorded { at: Instant(at), event, detail: String::new() }
    }

    #[test]
    fn what_still_holds_outlives_the_events_that_said_so() {
        let (r0, r1) = (Actor::Replica(ReplicaId(0)), Actor::Replica(ReplicaId(1)));
        let mut recording = Recording::new(1);
        recording.push(recorded(1, Event::Process(r0, Fate::Started)));
        recording.push(recorded(2, Event::Cut(r0, r1)));
        recording.push(recorded(3, Event::Process(r0, Fate::Crashed)));
        recording.push(recorded(4, Event::Note("n".into())));
        assert_eq!(recording.dropped, 3);
        let standing: Vec<u64> = recording.standing().iter().map(|r| r.at.0).collect();
        assert_eq!(standing, [2, 3]);
        recording.push(recorded(5, Event::Healed));
        recording.push(recorded(6, Event::Note("m".into())));
        let standing: Vec<u64> = recording.standing().iter().map(|r| r.at.0).collect();
        assert_eq!(standing, [3]);
    }
}
