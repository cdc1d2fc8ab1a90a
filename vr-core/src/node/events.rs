//! Events on their way to those who listen: bounded, and never in the node's way.

use core::{
    pin::Pin,
    task::{Context, Poll, Waker},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use futures::stream::Stream;

use crate::{node::lock::lock, replica::io::Event};

/// Events that are kept for slow listeners.
const EVENTS_MAX: usize = 256;

/// Where a node's events go.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventHub {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// Number of the first event that is kept.
    first: u64,
    listeners: u64,
    waiting: BTreeMap<u64, Waker>,
    lost: u64,
    closed: bool,
}

impl Kept {
    fn next(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.events.len()).unwrap_or(u64::MAX))
    }
}

impl EventHub {
    /// Tells everyone who listens.
    pub(crate) fn tell(&self, event: Event) {
        let mut kept = lock(&self.kept);
        if kept.events.len() >= EVENTS_MAX {
            kept.events.pop_front();
            kept.first = kept.first.saturating_add(1);
        }
        kept.events.push_back(event);
        let waiting = core::mem::take(&mut kept.waiting);
        drop(kept);
        waiting.into_values().for_each(Waker::wake);
    }

    /// No more events; the streams end.
    pub(crate) fn close(&self) {
        let mut kept = lock(&self.kept);
        kept.closed = true;
        let waiting = core::mem::take(&mut kept.waiting);
        drop(kept);
        waiting.into_values().for_each(Waker::wake);
    }

    /// Events that listeners were too slow for.
    pub(crate) fn lost(&self) -> u64 {
        lock(&self.kept).lost
    }

    /// The events from now on.
    pub(crate) fn listen(&self) -> Events {
        let mut kept = lock(&self.kept);
        kept.listeners = kept.listeners.saturating_add(1);
        Events { hub: self.clone(), listener: kept.listeners, next: kept.next(), lost: 0 }
    }
}

/// The events of a node since this stream was asked for.
///
/// The last 256 are kept; a listener that is slower than that loses the oldest, and
/// [`lost`](Self::lost) counts them. The stream ends when the node has stopped.
#[derive(Debug)]
pub struct Events {
    hub: EventHub,
    listener: u64,
    next: u64,
    lost: u64,
}

impl Events {
    /// How many events this listener was too slow for.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let hub = self.hub.clone();
        let mut kept = lock(&hub.kept);
        let missed = kept.first.saturating_sub(self.next);
        kept.lost = kept.lost.saturating_add(missed);
        self.lost = self.lost.saturating_add(missed);
        self.next = self.next.max(kept.first);
        let position = usize::try_from(self.next - kept.first).unwrap_or(usize::MAX);
        if let Some(event) = kept.events.get(position) {
            self.next = self.next.saturating_add(1);
            return Poll::Ready(Some(event.clone()));
        }
        if kept.closed {
            return Poll::Ready(None);
        }
        kept.waiting.insert(self.listener, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        lock(&self.hub.kept).waiting.remove(&self.listener);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, executor::block_on};

    use super::*;
    use crate::model::types::View;

    fn event(view: u64) -> Event {
        Event::QuorumRegained { view: View(view) }
    }

    #[test]
    fn every_listener_hears_every_event_since_it_listens() {
        let hub = EventHub::default();
        hub.tell(event(1));
        let (mut one, mut other) = (hub.listen(), hub.listen());
        hub.tell(event(2));
        assert_eq!(block_on(one.next()), Some(event(2)));
        assert_eq!(block_on(other.next()), Some(event(2)));
        assert_eq!(one.next().now_or_never(), None);
        hub.close();
        assert_eq!(block_on(one.next()), None);
    }

    #[test]
    fn a_slow_listener_loses_the_oldest_and_is_told_how_many() {
        let hub = EventHub::default();
        let mut slow = hub.listen();
        (0..300).for_each(|view| hub.tell(event(view)));
        assert_eq!(block_on(slow.next()), Some(event(44)));
        assert_eq!((slow.lost(), hub.lost()), (44, 44));
    }
}
