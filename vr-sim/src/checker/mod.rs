//! The oracles that watch every run: one property, one file.
//!
//! Each sees facts only: what was sent, what became durable, what was applied and what clients
//! were told. None asks a replica for its opinion, so none shares its mistakes; but
//! for how long its queues are, which nobody else can count, and how long its lease is.

pub mod applied;
pub mod bounds;
pub mod causal;
pub mod commits;
pub mod durability;
pub mod leases;
pub mod monotonic;
pub mod once;
pub mod starts;

use core::fmt;

use vr_core::model::message::{
    Committed, DoViewChange, Message, PrepareOk, RecoveryResponse, StartView,
};

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Violation {
    /// The oracle's name in docs/TESTING.md ("O1", ..).
    pub oracle: &'static str,
    /// The property, as the sentence that should be true.
    pub rule: &'static str,
    /// What was found instead.
    pub found: String,
}

impl Violation {
    pub(crate) const fn new(oracle: &'static str, rule: &'static str, found: String) -> Self {
        Self { oracle, rule, found }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} violated: {}; found: {}", self.oracle, self.rule, self.found)
    }
}

/// What an oracle says about one event.
pub type Verdict = Result<(), Violation>;

/// What a message says about its sender's state, as far as an oracle cares.
#[derive(Clone, Copy, Debug)]
pub enum Claim<'a> {
    /// "I hold this, as durably as the mode asks."
    Holds(&'a PrepareOk),
    /// "I lead this view, and this much is committed."
    Leads(Committed),
    /// "I promise not to acknowledge anything in an earlier view."
    Promises(&'a DoViewChange),
    /// "This is the log of the view I lead."
    Started(&'a StartView),
    /// Nothing that could be wrong.
    Nothing,
}

impl<'a> From<&'a Message> for Claim<'a> {
    fn from(message: &'a Message) -> Self {
        match message {
            Message::PrepareOk(m) => Self::Holds(m),
            Message::Prepare(m) => Self::Leads(m.commit),
            Message::Commit(m) => Self::Leads(m.commit),
            Message::DoViewChange(m) => Self::Promises(m),
            Message::StartView(m)
            | Message::RecoveryResponse(RecoveryResponse { start: Some(m), .. }) => {
                Self::Started(m)
            }
            Message::Register(_)
            | Message::Request(_)
            | Message::Reply(_)
            | Message::Requests(_)
            | Message::Replies(_)
            | Message::Rejected(_)
            | Message::Query(_)
            | Message::Answer(_)
            | Message::Forward(_)
            | Message::ForwardReply(_)
            | Message::StartViewChange(_)
            | Message::GetView(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Handoff(_)
            | Message::GetHeaders(_)
            | Message::Headers(_)
            | Message::GetEntries(_)
            | Message::Entries(_)
            | Message::Released(_)
            | Message::GetSnapshot(_)
            | Message::Snapshot(_)
            | Message::ReadIndex(_)
            | Message::ReadIndexOk(_)
            | Message::Hello(_)
            | Message::HelloOk(_)
            | Message::Found(_)
            | Message::FoundOk(_)
            | Message::Recovery(_)
            | Message::RecoveryResponse(RecoveryResponse { start: None, .. })
            | Message::GetCrashVector(_)
            | Message::CrashVectorIs(_) => Self::Nothing,
        }
    }
}
