//! Which messages a rule of a scenario is about.

use vr_core::model::{kind::Kind, types::View};

use crate::{actor::Actor, trace::event::Packet};

/// Names a rule that was made by hand, so that it can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId(pub(crate) u64);

/// A set of messages: by kind, sender, receiver and view; everything that is not said matches all.
///
/// ```
/// use vr_core::model::{kind::Kind, types::ReplicaId};
/// use vr_sim::network::selection::Messages;
///
/// let slow_votes = Messages::of([Kind::DoViewChange]).from(ReplicaId(2)).to(ReplicaId(1));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    kinds: Vec<Kind>,
    from: Option<Actor>,
    to: Option<Actor>,
    view: Option<View>,
}

impl Messages {
    /// All messages.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Messages of these kinds.
    #[must_use]
    pub fn of(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self { kinds: kinds.into_iter().collect(), ..Self::default() }
    }

    /// Only those that `sender` sent.
    #[must_use]
    pub fn from(mut self, sender: impl Into<Actor>) -> Self {
        self.from = Some(sender.into());
        self
    }

    /// Only those for `receiver`.
    #[must_use]
    pub fn to(mut self, receiver: impl Into<Actor>) -> Self {
        self.to = Some(receiver.into());
        self
    }

    /// Only those that are about `view`.
    #[must_use]
    pub const fn in_view(mut self, view: View) -> Self {
        self.view = Some(view);
        self
    }

    /// Whether `packet` is one of them.
    #[must_use]
    pub fn contain(&self, packet: &Packet) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&packet.kind))
            && self.from.is_none_or(|from| from == packet.from)
            && self.to.is_none_or(|to| to == packet.to)
            && self.view.is_none_or(|view| view == packet.view)
    }
}

#[cfg(test)]
mod tests {
    use vr_core::model::types::{OpNumber, ReplicaId};

    use super::*;

    #[test]
    fn every_part_narrows_the_selection() {
        let (r0, r1) = (ReplicaId(0).into(), ReplicaId(1).into());
        let op_number = OpNumber(1);
        let packet = Packet {
            serial: 0,
            from: r0,
            to: r1,
            kind: Kind::Prepare,
            view: View(3),
            op_number,
            content: 0,
        };
        assert!(Messages::all().contain(&packet));
        let some = Messages::of([Kind::Prepare, Kind::Commit]).from(r0).to(r1).in_view(View(3));
        assert!(some.contain(&packet));
        assert!(!some.clone().to(r0).contain(&packet));
        assert!(!some.in_view(View(4)).contain(&packet));
        assert!(!Messages::of([Kind::Ping]).contain(&packet));
    }
}
