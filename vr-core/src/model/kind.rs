//! The names of messages and the lanes they take.

use serde::{Deserialize, Serialize};

use crate::model::message::Message;

/// Which queue of a connection a message takes; a later lane never delays an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Heartbeats, acknowledgements, votes and view changes.
    Control,
    /// Requests, prepares and replies.
    Data,
    /// State transfer.
    Bulk,
}

impl Message {
    /// The message's name, for logs, counters and filters.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Register(_) => Kind::Register,
            Self::Request(_) => Kind::Request,
            Self::Reply(_) => Kind::Reply,
            Self::Requests(_) => Kind::Requests,
            Self::Replies(_) => Kind::Replies,
            Self::Rejected(_) => Kind::Rejected,
            Self::Query(_) => Kind::Query,
            Self::Answer(_) => Kind::Answer,
            Self::Forward(_) => Kind::Forward,
            Self::ForwardReply(_) => Kind::ForwardReply,
            Self::Prepare(_) => Kind::Prepare,
            Self::PrepareOk(_) => Kind::PrepareOk,
            Self::Commit(_) => Kind::Commit,
            Self::StartViewChange(_) => Kind::StartViewChange,
            Self::DoViewChange(_) => Kind::DoViewChange,
            Self::StartView(_) => Kind::StartView,
            Self::GetView(_) => Kind::GetView,
            Self::Ping(_) => Kind::Ping,
            Self::Pong(_) => Kind::Pong,
            Self::Handoff(_) => Kind::Handoff,
            Self::GetHeaders(_) => Kind::GetHeaders,
            Self::Headers(_) => Kind::Headers,
            Self::GetEntries(_) => Kind::GetEntries,
            Self::Entries(_) => Kind::Entries,
            Self::Released(_) => Kind::Released,
            Self::GetSnapshot(_) => Kind::GetSnapshot,
            Self::Snapshot(_) => Kind::Snapshot,
            Self::ReadIndex(_) => Kind::ReadIndex,
            Self::ReadIndexOk(_) => Kind::ReadIndexOk,
            Self::Hello(_) => Kind::Hello,
            Self::HelloOk(_) => Kind::HelloOk,
            Self::Found(_) => Kind::Found,
            Self::FoundOk(_) => Kind::FoundOk,
            Self::Recovery(_) => Kind::Recovery,
            Self::RecoveryResponse(_) => Kind::RecoveryResponse,
            Self::GetCrashVector(_) => Kind::GetCrashVector,
            Self::CrashVectorIs(_) => Kind::CrashVectorIs,
        }
    }

    /// The queue that the message takes.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Register(_)
            | Self::Request(_)
            | Self::Reply(_)
            | Self::Requests(_)
            | Self::Replies(_)
            | Self::Rejected(_)
            | Self::Query(_)
            | Self::Answer(_)
            | Self::Forward(_)
            | Self::ForwardReply(_)
            | Self::Prepare(_) => Lane::Data,
            Self::PrepareOk(_)
            | Self::Commit(_)
            | Self::StartViewChange(_)
            | Self::DoViewChange(_)
            | Self::StartView(_)
            | Self::GetView(_)
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Handoff(_)
            | Self::GetHeaders(_)
            | Self::ReadIndex(_)
            | Self::ReadIndexOk(_)
            | Self::Hello(_)
            | Self::HelloOk(_)
            | Self::Found(_)
            | Self::FoundOk(_)
            | Self::Recovery(_)
            | Self::RecoveryResponse(_)
            | Self::GetCrashVector(_)
            | Self::CrashVectorIs(_) => Lane::Control,
            Self::Headers(_)
            | Self::GetEntries(_)
            | Self::Entries(_)
            | Self::Released(_)
            | Self::GetSnapshot(_)
            | Self::Snapshot(_) => Lane::Bulk,
        }
    }
}

/// The name of a message; its number is the one on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// [`Message::Register`].
    Register = 1,
    /// [`Message::Request`].
    Request = 2,
    /// [`Message::Reply`].
    Reply = 3,
    /// [`Message::Rejected`].
    Rejected = 4,
    /// [`Message::Query`].
    Query = 5,
    /// [`Message::Answer`].
    Answer = 6,
    /// [`Message::Forward`].
    Forward = 7,
    /// [`Message::ForwardReply`].
    ForwardReply = 8,
    /// [`Message::Requests`].
    Requests = 9,
    /// [`Message::Replies`].
    Replies = 10,
    /// [`Message::Prepare`].
    Prepare = 16,
    /// [`Message::PrepareOk`].
    PrepareOk = 17,
    /// [`Message::Commit`].
    Commit = 18,
    /// [`Message::StartViewChange`].
    StartViewChange = 32,
    /// [`Message::DoViewChange`].
    DoViewChange = 33,
    /// [`Message::StartView`].
    StartView = 34,
    /// [`Message::GetView`].
    GetView = 35,
    /// [`Message::Ping`].
    Ping = 36,
    /// [`Message::Pong`].
    Pong = 37,
    /// [`Message::Handoff`].
    Handoff = 38,
    /// [`Message::GetHeaders`].
    GetHeaders = 48,
    /// [`Message::Headers`].
    Headers = 49,
    /// [`Message::GetEntries`].
    GetEntries = 50,
    /// [`Message::Entries`].
    Entries = 51,
    /// [`Message::Released`].
    Released = 52,
    /// [`Message::GetSnapshot`].
    GetSnapshot = 53,
    /// [`Message::Snapshot`].
    Snapshot = 54,
    /// [`Message::ReadIndex`].
    ReadIndex = 64,
    /// [`Message::ReadIndexOk`].
    ReadIndexOk = 65,
    /// [`Message::Hello`].
    Hello = 80,
    /// [`Message::HelloOk`].
    HelloOk = 81,
    /// [`Message::Found`].
    Found = 82,
    /// [`Message::FoundOk`].
    FoundOk = 83,
    /// [`Message::Recovery`].
    Recovery = 96,
    /// [`Message::RecoveryResponse`].
    RecoveryResponse = 97,
    /// [`Message::GetCrashVector`].
    GetCrashVector = 98,
    /// [`Message::CrashVectorIs`].
    CrashVectorIs = 99,
}

impl Kind {
    /// Whether the message founds or finds a group, and therefore passes the gates of one.
    #[must_use]
    pub fn is_genesis(self) -> bool {
        matches!(self, Self::Hello | Self::HelloOk | Self::Found | Self::FoundOk)
    }

    /// Whether the sender's incarnation is not looked at: who asks for its own does not know it.
    #[must_use]
    pub fn is_before_incarnation(self) -> bool {
        self.is_genesis() || matches!(self, Self::GetCrashVector | Self::CrashVectorIs)
    }

    /// All kinds, in order of their numbers.
    pub const ALL: [Self; 37] = [
        Self::Register,
        Self::Request,
        Self::Reply,
        Self::Rejected,
        Self::Query,
        Self::Answer,
        Self::Forward,
        Self::ForwardReply,
        Self::Requests,
        Self::Replies,
        Self::Prepare,
        Self::PrepareOk,
        Self::Commit,
        Self::StartViewChange,
        Self::DoViewChange,
        Self::StartView,
        Self::GetView,
        Self::Ping,
        Self::Pong,
        Self::Handoff,
        Self::GetHeaders,
        Self::Headers,
        Self::GetEntries,
        Self::Entries,
        Self::Released,
        Self::GetSnapshot,
        Self::Snapshot,
        Self::ReadIndex,
        Self::ReadIndexOk,
        Self::Hello,
        Self::HelloOk,
        Self::Found,
        Self::FoundOk,
        Self::Recovery,
        Self::RecoveryResponse,
        Self::GetCrashVector,
        Self::CrashVectorIs,
    ];

    /// The number on the wire.
    #[must_use]
    #[expect(clippy::as_conversions, reason = "the discriminants are the numbers")]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind with this number; `None` if there is none.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Register),
            2 => Some(Self::Request),
            3 => Some(Self::Reply),
            4 => Some(Self::Rejected),
            5 => Some(Self::Query),
            6 => Some(Self::Answer),
            7 => Some(Self::Forward),
            8 => Some(Self::ForwardReply),
            9 => Some(Self::Requests),
            10 => Some(Self::Replies),
            16 => Some(Self::Prepare),
            17 => Some(Self::PrepareOk),
            18 => Some(Self::Commit),
            32 => Some(Self::StartViewChange),
            33 => Some(Self::DoViewChange),
            34 => Some(Self::StartView),
            35 => Some(Self::GetView),
            36 => Some(Self::Ping),
            37 => Some(Self::Pong),
            38 => Some(Self::Handoff),
            48 => Some(Self::GetHeaders),
            49 => Some(Self::Headers),
            50 => Some(Self::GetEntries),
            51 => Some(Self::Entries),
            52 => Some(Self::Released),
            53 => Some(Self::GetSnapshot),
            54 => Some(Self::Snapshot),
            64 => Some(Self::ReadIndex),
            65 => Some(Self::ReadIndexOk),
            80 => Some(Self::Hello),
            81 => Some(Self::HelloOk),
            82 => Some(Self::Found),
            83 => Some(Self::FoundOk),
            96 => Some(Self::Recovery),
            97 => Some(Self::RecoveryResponse),
            98 => Some(Self::GetCrashVector),
            99 => Some(Self::CrashVectorIs),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_names_its_kind() {
        let known: Vec<Kind> = (0..=u8::MAX).filter_map(Kind::from_number).collect();
        assert_eq!(known, Kind::ALL);
        assert!(known.iter().all(|kind| Kind::from_number(kind.number()) == Some(*kind)));
    }
}
