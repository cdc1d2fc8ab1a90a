//! What a call leaves behind when nobody can tell what became of it: enough to find out later.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{
    operation::Operation,
    types::{ClientId, Epoch, GroupId, OpNumber, RequestNumber},
};

/// Version of a ticket's bytes.
const TICKET_VERSION: u16 = 1;

/// Bytes in front of the record: version and checksum.
const FIXED_BYTES: usize = 6;

/// A request whose outcome is unknown, as something that can be kept, stored and sent.
///
/// [`Client::resume`](crate::client::Client::resume) finds out what became of it, in this process
/// or in another one, also long after the one that made the call ended. It can be resumed any
/// number of times, by several at once; the operation executes at most once.
///
/// Requests of one session execute in the order of their numbers, so a ticket holds, besides its
/// own operation, those that were in flight before it and have no reply either: whoever resumes it
/// asks for them as well. Its size is that of at most `Config::window` operations.
///
/// Stored with [`to_bytes`](Self::to_bytes), or as any serde value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Record", into = "Record")]
pub struct Ticket {
    record: Record,
}

/// The fields of a ticket.
///
/// Invariant (`is_sound`): there is an operation, and the first one's number is
/// at least 1.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The group that was asked.
    pub(crate) group: GroupId,
    /// The epoch that the session belongs to.
    pub(crate) epoch: Epoch,
    /// Whose session it is.
    pub(crate) client: ClientId,
    /// The op that registered the client.
    pub(crate) session: OpNumber,
    /// The number of the last operation, which the ticket is for.
    pub(crate) request_number: RequestNumber,
    /// Operations with consecutive numbers; the last one is the ticket's own.
    pub(crate) operations: Vec<Operation>,
}

impl Record {
    fn is_sound(&self) -> bool {
        let count = u64::try_from(self.operations.len()).unwrap_or(u64::MAX);
        count > 0 && self.request_number.0 >= count
    }
}

impl Ticket {
    /// A ticket with these fields.
    pub(crate) fn new(record: Record) -> Self {
        debug_assert!(record.is_sound(), "a ticket is for a request: {}", record.request_number);
        Self { record }
    }

    /// The group that was asked.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.record.group
    }

    /// The membership period that the session belongs to.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.record.epoch
    }

    /// The client that made the call.
    #[must_use]
    pub const fn client(&self) -> ClientId {
        self.record.client
    }

    /// The op that registered that client.
    #[must_use]
    pub const fn session(&self) -> OpNumber {
        self.record.session
    }

    /// The client's number for the request.
    #[must_use]
    pub const fn request_number(&self) -> RequestNumber {
        self.record.request_number
    }

    /// The operation's bytes, or those of several.
    #[must_use]
    pub fn operation(&self) -> &[u8] {
        self.record.operations.last().map_or(&[], |operation| operation.bytes.as_ref())
    }

    /// Whether the call was for several operations:
    /// [`resume_many`](crate::client::Client::resume_many) returns their replies.
    #[must_use]
    pub fn is_many(&self) -> bool {
        self.record.operations.last().is_some_and(|operation| operation.many)
    }

    /// The ticket's operation and those that must execute before it, in order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (RequestNumber, &Operation)> {
        let operations = &self.record.operations;
        let count = u64::try_from(operations.len()).unwrap_or(u64::MAX);
        let first = self.record.request_number.0.saturating_sub(count).saturating_add(1);
        (first..).map(RequestNumber).zip(operations)
    }

    /// Bytes of all operations.
    pub(crate) fn operation_bytes(&self) -> u64 {
        self.record.operations.iter().map(Operation::length).sum()
    }

    /// The same ticket, of another group.
    #[cfg(test)]
    pub(crate) fn of_group(&self, group: u128) -> Self {
        Self { record: Record { group: GroupId(group), ..self.record.clone() } }
    }

    /// The ticket as bytes, with a version and a checksum (docs/WIRE.md "Tickets").
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let record = postcard::to_allocvec(&self.record).unwrap_or_default();
        let mut bytes = TICKET_VERSION.to_le_bytes().to_vec();
        bytes.extend(crc32c::crc32c(&record).to_le_bytes());
        bytes.extend(record);
        bytes
    }

    /// The ticket that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`TicketError`]: the bytes are no ticket, or one of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TicketError> {
        let (fixed, record) = bytes.split_first_chunk().ok_or(TicketError::Damaged)?;
        let [low, high, checksum @ ..]: [u8; FIXED_BYTES] = *fixed;
        let version = u16::from_le_bytes([low, high]);
        if version != TICKET_VERSION {
            return Err(TicketError::Version { found: version, known: TICKET_VERSION });
        }
        if crc32c::crc32c(record) != u32::from_le_bytes(checksum) {
            return Err(TicketError::Damaged);
        }
        match postcard::take_from_bytes::<Record>(record) {
            Ok((record, [])) => Self::try_from(record),
            Ok(_) | Err(_) => Err(TicketError::Damaged),
        }
    }
}

impl TryFrom<Record> for Ticket {
    type Error = TicketError;

    fn try_from(record: Record) -> Result<Self, TicketError> {
        if record.is_sound() { Ok(Self { record }) } else { Err(TicketError::Damaged) }
    }
}

impl From<Ticket> for Record {
    fn from(ticket: Ticket) -> Self {
        ticket.record
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("group", &self.record.group)
            .field("epoch", &self.record.epoch)
            .field("client", &self.record.client)
            .field("session", &self.record.session)
            .field("request_number", &self.record.request_number)
            .field("operations", &self.record.operations.len())
            .field("bytes", &self.operation_bytes())
            .finish()
    }
}

/// Why bytes are not a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// Another version of this crate wrote it.
    #[error("the ticket has version {found}, this is version {known}")]
    Version {
        /// The version that it names.
        found: u16,
        /// The version that can be read.
        known: u16,
    },
    /// It was changed, cut short, or is something else.
    #[error("the bytes are not a ticket, or were damaged")]
    Damaged,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(number: u64, operations: &[&'static [u8]]) -> Record {
        Record {
            group: GroupId(1),
            epoch: Epoch(2),
            client: ClientId(3),
            session: OpNumber(4),
            request_number: RequestNumber(number),
            operations: operations.iter().map(|it| Bytes::from_static(it).into()).collect(),
        }
    }

    #[test]
    fn a_ticket_survives_its_bytes() {
        let ticket = Ticket::new(record(9, &[b"one", b"two"]));
        assert_eq!(Ticket::from_bytes(&ticket.to_bytes()), Ok(ticket.clone()));
        assert_eq!(ticket.operation(), b"two");
        let numbers: Vec<u64> = ticket.requests().map(|(number, _)| number.0).collect();
        assert_eq!((numbers, ticket.operation_bytes()), (vec![8, 9], 6));
    }

    #[test]
    fn a_damaged_or_foreign_ticket_is_an_error() {
        let bytes = Ticket::new(record(9, &[b"op"])).to_bytes();
        for length in 0..bytes.len() {
            assert!(Ticket::from_bytes(&bytes[..length]).is_err(), "cut to {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Ticket::from_bytes(&damaged).is_err(), "bit {bit} flipped");
        }
        let mut later = bytes;
        later[0] = 9;
        let error = TicketError::Version { found: 9, known: TICKET_VERSION };
        assert_eq!(Ticket::from_bytes(&later), Err(error));
    }

    #[test]
    fn what_names_no_request_is_no_ticket() {
        for unsound in [record(9, &[]), record(1, &[b"zero", b"one"])] {
            assert!(Ticket::try_from(unsound.clone()).is_err());
            let bytes = postcard::to_allocvec(&unsound).unwrap();
            assert!(postcard::from_bytes::<Ticket>(&bytes).is_err());
        }
    }
}
