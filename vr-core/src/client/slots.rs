//! Where callers wait for their results.

use core::task::{Context, Poll, Waker};

use crate::client::{call::CallId, io::Completed, outcome::RequestError};

/// What a call returns.
pub(crate) type CallResult = Result<Completed, RequestError>;

/// Calls that wait; their number is bounded by the limits of the session.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// One place to wait; reused, under another generation.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    taken: bool,
    waker: Option<Waker>,
    result: Option<CallResult>,
}

impl Slots {
    /// A name for a call that waits from here on.
    pub(crate) fn take(&mut self) -> CallId {
        let position = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(u32::MAX)
        });
        let mut generation = 0;
        if let Some(slot) = self.at(position) {
            slot.taken = true;
            generation = slot.generation;
        }
        CallId(u64::from(generation) << 32 | u64::from(position))
    }

    /// Calls that wait, or whose result nobody has taken yet.
    pub(crate) fn taken(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// The call is over; returns whom to wake. Nobody waits for it any more: nothing happens.
    pub(crate) fn finish(&mut self, call: CallId, result: CallResult) -> Option<Waker> {
        let slot = self.slot(call)?;
        slot.result = Some(result);
        slot.waker.take()
    }

    /// The result of the call, which is forgotten then; otherwise waits for it.
    pub(crate) fn poll(&mut self, cx: &Context<'_>, call: CallId) -> Poll<CallResult> {
        let Some(slot) = self.slot(call) else {
            return Poll::Ready(Err(RequestError::ShuttingDown));
        };
        if let Some(result) = slot.result.take() {
            self.release(call);
            return Poll::Ready(result);
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Nobody waits for the call any more; false if it was over.
    pub(crate) fn release(&mut self, call: CallId) -> bool {
        let Some(slot) = self.slot(call) else { return false };
        let unfinished = slot.result.is_none();
        *slot = Slot { generation: slot.generation.wrapping_add(1), ..Slot::default() };
        self.free.push(position(call));
        unfinished
    }

    fn at(&mut self, position: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(position).ok()?)
    }

    fn slot(&mut self, call: CallId) -> Option<&mut Slot> {
        let generation = u32::try_from(call.0 >> 32).unwrap_or(0);
        self.at(position(call)).filter(|slot| slot.taken && slot.generation == generation)
    }
}

fn position(call: CallId) -> u32 {
    u32::try_from(call.0 & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;

    use super::*;

    #[test]
    fn a_result_is_returned_once_and_its_place_reused_under_another_name() {
        let mut slots = Slots::default();
        let call = slots.take();
        let cx = Context::from_waker(noop_waker_ref());
        assert!(slots.poll(&cx, call).is_pending());
        assert!(slots.finish(call, Err(RequestError::Malformed)).is_some());
        assert_eq!(slots.poll(&cx, call), Poll::Ready(Err(RequestError::Malformed)));
        let next = slots.take();
        assert_ne!(call, next);
        assert!(slots.finish(call, Err(RequestError::Malformed)).is_none());
        assert!(slots.poll(&cx, next).is_pending(), "a late result is not the next call's");
    }

    #[test]
    fn a_released_call_forgets_its_result() {
        let mut slots = Slots::default();
        let (one, other) = (slots.take(), slots.take());
        assert!(slots.release(one));
        assert!(!slots.release(one));
        slots.finish(other, Err(RequestError::Malformed));
        assert_eq!(slots.taken(), 1);
        assert!(!slots.release(other), "it was over");
        assert_eq!(slots.taken(), 0);
        assert_eq!(slots.slots.len(), 2);
    }
}
