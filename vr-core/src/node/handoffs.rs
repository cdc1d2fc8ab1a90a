//! Who waits for a planned hand-off, and what a shutdown waits for.

use futures::channel::oneshot;

use crate::{
    model::types::{ReplicaId, View},
    replica::io::{Event, HandoffError},
};

/// What a hand-off came to: a later view has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOff {
    /// The view.
    pub view: View,
    /// Who leads it: the successor, unless that failed meanwhile.
    pub primary: ReplicaId,
}

/// What whoever wants a hand-off is told.
pub(crate) type HandoffResult = Result<HandedOff, HandoffError>;

/// A handle wants this replica to hand its view off.
#[derive(Debug)]
pub(crate) struct HandoffOrder {
    /// To whom; to the best successor if nobody is named.
    pub(crate) to: Option<ReplicaId>,
    pub(crate) answer: oneshot::Sender<HandoffResult>,
}

/// The hand-off that is under way, if one is: from the order until the next view has started here.
#[derive(Debug, Default)]
pub(crate) struct Handoffs {
    waiting: Vec<oneshot::Sender<HandoffResult>>,
    under_way: bool,
}

impl Handoffs {
    /// The engine takes the order.
    pub(crate) const fn begin(&mut self) {
        self.under_way = true;
    }

    /// Whether a hand-off was ordered whose end is not known yet.
    pub(crate) const fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// The engine took the order, or refused it, in which case its giver is told at once.
    pub(crate) fn ordered(&mut self, order: HandoffOrder, taken: Result<(), HandoffError>) {
        match taken {
            Ok(()) => {
                self.begin();
                self.waiting.push(order.answer);
            }
            // Whoever ordered it may have stopped waiting.
            Err(reason) => drop(order.answer.send(Err(reason))),
        }
    }

    /// Learns from the engine's events how it ends.
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other event is about it")]
    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::HandoffFailed { reason } => self.end(&Err(reason.clone())),
            Event::ViewStarted { view, primary, .. } => {
                self.end(&Ok(HandedOff { view: *view, primary: *primary }));
            }
            _ => {}
        }
    }

    fn end(&mut self, result: &HandoffResult) {
        self.under_way = false;
        for answer in self.waiting.drain(..) {
            // Whoever ordered it may have stopped waiting.
            let _ = answer.send(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::types::OpNumber;

    fn order() -> (HandoffOrder, oneshot::Receiver<HandoffResult>) {
        let (answer, result) = oneshot::channel();
        (HandoffOrder { to: None, answer }, result)
    }

    #[test]
    fn all_who_wait_learn_which_view_started() {
        let mut handoffs = Handoffs::default();
        let ((one, mut first), (other, mut second)) = (order(), order());
        handoffs.ordered(one, Ok(()));
        handoffs.ordered(other, Ok(()));
        handoffs.note(&Event::HandedOff { to: ReplicaId(1), view: View(1) });
        assert!(handoffs.is_under_way());
        let (view, primary) = (View(1), ReplicaId(1));
        handoffs.note(&Event::ViewStarted { view, primary, op_number: OpNumber(5) });
        assert!(!handoffs.is_under_way());
        for result in [&mut first, &mut second] {
            assert_eq!(result.try_recv(), Ok(Some(Ok(HandedOff { view, primary }))));
        }
    }

    #[test]
    fn who_is_refused_does_not_wait() {
        let mut handoffs = Handoffs::default();
        let (order, mut result) = order();
        handoffs.ordered(order, Err(HandoffError::NoSuccessor));
        assert!(!handoffs.is_under_way());
        assert_eq!(result.try_recv(), Ok(Some(Err(HandoffError::NoSuccessor))));
    }
}
