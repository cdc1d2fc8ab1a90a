//! The first words on every connection: who calls whom, and why the other end may refuse.
//!
//! ```text
//! dialler                                acceptor
//!    | ---- Hello {purpose, to, facts} ---> |   judge: version, group, members, who, whom, mode
//!    | <--- Answer {verdict, facts} ------- |   accepted, or the reason
//!    | ---- frames -----------------------> |   only on a link; a knock or a probe ends here
//! ```
//!
//! The bytes are described in docs/WIRE.md, "Handshake".

use std::{fmt, io};

use bytes::{Buf, BufMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use vr_core::{
    Durability, Endpoint, ReplicaId, Role,
    model::{
        encoding::{WIRE_VERSION, WIRE_VERSION_MIN},
        membership::MEMBERS_MAX,
        types::{ClientId, GroupId},
    },
};

/// What every handshake begins with; the line ends betray a connection that rewrites text.
pub(crate) const MAGIC: [u8; 8] = *b"VR-TCP\r\n";

/// The wire versions that this release speaks.
pub(crate) const VERSIONS: Versions = Versions { min: WIRE_VERSION_MIN, max: WIRE_VERSION };

/// Bytes of magic, versions and length; the same in all versions for ever.
pub(crate) const PREFIX_BYTES: usize = 16;

/// Bytes that may follow the prefix.
pub(crate) const BODY_BYTES_MAX: usize = 8 << 10;

/// Bytes of a group's name.
pub(crate) const GROUP_NAME_BYTES_MAX: usize = 1 << 10;

/// Bytes of the checksum at the end of a body.
const CHECKSUM_BYTES: usize = 4;

/// A range of wire versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: u16,
    pub(crate) max: u16,
}

impl Versions {
    /// The newest version that both speak.
    pub(crate) fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// What one end says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Replica or client, and which.
    pub(crate) role: Role,
    /// Its durability mode; clients have none.
    pub(crate) durability: Option<Durability>,
    /// Drawn when the transport was made; tells a restarted process from the one before.
    pub(crate) process: u128,
    /// The largest frame that it takes.
    pub(crate) message_bytes_max: u32,
    /// Its group.
    pub(crate) group: GroupId,
    /// The group's name.
    pub(crate) group_name: String,
    /// The members it was configured with, ascending.
    pub(crate) members: Vec<ReplicaId>,
}

impl Facts {
    pub(crate) fn new(endpoint: &Endpoint, process: u128) -> Self {
        Self {
            role: endpoint.role,
            durability: endpoint.durability,
            process,
            message_bytes_max: endpoint.message_bytes_max,
            group: endpoint.group,
            group_name: endpoint.group_name.clone(),
            members: endpoint.members.as_slice().iter().map(|member| member.id).collect(),
        }
    }

    /// The replica that this end is; `None` for a client.
    pub(crate) const fn replica(&self) -> Option<ReplicaId> {
        match self.role {
            Role::Replica(id) => Some(id),
            Role::Client(_) => None,
        }
    }

    /// The name of its durability mode.
    fn mode(&self) -> String {
        self.durability.map_or_else(|| "none".to_owned(), |mode| mode.to_string())
    }

    fn encode(&self, into: &mut Vec<u8>) {
        match self.role {
            Role::Replica(id) => {
                into.put_u8(0);
                into.put_u128_le(u128::from(id.0));
            }
            Role::Client(id) => {
                into.put_u8(1);
                into.put_u128_le(id.0);
            }
        }
        into.put_u8(mode_number(self.durability));
        into.put_u128_le(self.process);
        into.put_u32_le(self.message_bytes_max);
        into.put_u128_le(self.group.0);
        put_text(into, &self.group_name);
        put_length(into, self.members.len());
        for member in &self.members {
            into.put_u64_le(member.0);
        }
    }

    fn decode(from: &mut &[u8]) -> Result<Self, Malformed> {
        let role = match (from.try_get_u8()?, from.try_get_u128_le()?) {
            (0, id) => Role::Replica(ReplicaId(u64::try_from(id).map_err(|_| Malformed)?)),
            (1, id) => Role::Client(ClientId(id)),
            _ => return Err(Malformed),
        };
        let durability = mode_of(from.try_get_u8()?)?;
        if durability.is_some() != matches!(role, Role::Replica(_)) {
            return Err(Malformed);
        }
        let process = from.try_get_u128_le()?;
        let message_bytes_max = from.try_get_u32_le()?;
        let group = GroupId(from.try_get_u128_le()?);
        let group_name = take_text(from)?;
        let count = usize::from(from.try_get_u16_le()?);
        if count > MEMBERS_MAX {
            return Err(Malformed);
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(ReplicaId(from.try_get_u64_le()?));
        }
        Ok(Self { role, durability, process, message_bytes_max, group, group_name, members })
    }
}

/// `replica 3` or `client 0af..`.
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Replica(id) => write!(f, "replica {id}"),
            Role::Client(id) => write!(f, "client {id}"),
        }
    }
}

/// Which frames a connection carries; ordered as connections are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Carries {
    /// Between replicas: the control lane.
    Control,
    /// Between replicas: the data lane, and the control lane while that has nothing to wait for.
    Data,
    /// Between a client and a replica: everything.
    All,
    /// Between replicas: the bulk lane.
    Bulk,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To learn which process answers at a member's address; ends with the answer.
    Probe,
    /// To ask a replica that dials this pair to do so now; ends with the answer.
    Knock,
    /// To carry frames.
    Link {
        /// Which frames.
        carries: Carries,
        /// The link it belongs to; grows by one with each link that a process dials.
        number: u64,
    },
}

/// What the dialling end says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) purpose: Purpose,
    /// Who the dialler thinks is at this address.
    pub(crate) to: ReplicaId,
    pub(crate) facts: Facts,
}

impl Hello {
    pub(crate) fn encode(&self, versions: Versions) -> Vec<u8> {
        let mut body = Vec::new();
        let (purpose, carries, number) = match self.purpose {
            Purpose::Probe => (0, 0, 0),
            Purpose::Knock => (1, 0, 0),
            Purpose::Link { carries, number } => (2, carries_number(carries), number),
        };
        body.put_u8(purpose);
        body.put_u8(carries);
        body.put_u64_le(number);
        body.put_u64_le(self.to.0);
        self.facts.encode(&mut body);
        envelop(versions, &body)
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut from = checked(body)?;
        let purpose = match (from.try_get_u8()?, from.try_get_u8()?, from.try_get_u64_le()?) {
            (0, 0, 0) => Purpose::Probe,
            (1, 0, 0) => Purpose::Knock,
            (2, carries, number) => Purpose::Link { carries: carries_of(carries)?, number },
            _ => return Err(Malformed),
        };
        let to = ReplicaId(from.try_get_u64_le()?);
        let facts = Facts::decode(&mut from)?;
        if from.has_remaining() {
            return Err(Malformed);
        }
        Ok(Self { purpose, to, facts })
    }
}

/// What the accepting end says to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) verdict: Verdict,
    pub(crate) facts: Facts,
}

/// Whether the dialler may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may, and frames have this version.
    Accepted { version: u16 },
    /// It may not.
    Refused(Refusal),
}

/// Why a dialler may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The two have no wire version in common.
    Version { caller: Versions, answerer: Versions },
    /// The groups have different names.
    Group,
    /// The member lists differ.
    Members,
    /// Name and members are the same, the group's id is not.
    GroupId,
    /// The dialler says it is a replica that is not in the list.
    NotMember,
    /// The two run in different durability modes.
    Mode,
    /// The dialler wants another replica.
    WrongReplica { wanted: ReplicaId },
    /// Another process with the dialler's id lives.
    SameReplica { address: String },
    /// There are too many clients.
    Crowded { connections_max: u32 },
    /// The hello cannot be read, or asks for what does not exist.
    Malformed,
}

impl Refusal {
    /// The difference in words, the same at both ends, with a remedy.
    pub(crate) fn explain(&self, caller: &Facts, answerer: &Facts) -> String {
        match self {
            Self::Version { caller, answerer } => format!(
                "the caller speaks wire versions {caller}, the answering end {answerer}; \
                 run releases that have one in common"
            ),
            Self::Group => format!(
                "{caller} belongs to group '{}', {answerer} to group '{}'; \
                 correct the group's name or the addresses",
                caller.group_name, answerer.group_name
            ),
            Self::Members => format!(
                "{caller} was given the members {}, {answerer} the members {}; \
                 give all the same list",
                List(&caller.members),
                List(&answerer.members)
            ),
            Self::GroupId => format!(
                "{caller} belongs to group id {}, {answerer} to group id {}, \
                 with the same name and members; run the same release",
                caller.group, answerer.group
            ),
            Self::NotMember => format!(
                "{caller} is not one of the members {}; correct its id or the list",
                List(&answerer.members)
            ),
            Self::WrongReplica { wanted } => format!(
                "{caller} wanted replica {wanted}, but {answerer} answers at that address; \
                 correct the addresses in the member list"
            ),
            Self::Mode => format!(
                "{caller} runs in durability mode {}, {answerer} in {}; \
                 start all members in the same mode, the one that the group was founded in",
                caller.mode(),
                answerer.mode()
            ),
            Self::SameReplica { address } => format!(
                "another process is {caller} and is connected from {address}; stop one of the two"
            ),
            Self::Crowded { connections_max } => format!(
                "{answerer} has {connections_max} client connections, its limit; \
                 close some or raise client_connections_max"
            ),
            Self::Malformed => {
                format!("{answerer} cannot read what the caller said; run the same release")
            }
        }
    }

    /// Its number on the wire, and what goes with it.
    fn parts(&self) -> (u8, u64, &str) {
        match self {
            Self::Version { .. } => (1, 0, ""),
            Self::Group => (2, 0, ""),
            Self::Members => (3, 0, ""),
            Self::GroupId => (4, 0, ""),
            Self::NotMember => (5, 0, ""),
            Self::WrongReplica { wanted } => (6, wanted.0, ""),
            Self::SameReplica { address } => (7, 0, address),
            Self::Crowded { connections_max } => (8, u64::from(*connections_max), ""),
            Self::Malformed => (9, 0, ""),
            Self::Mode => (10, 0, ""),
        }
    }
}

impl Answer {
    pub(crate) fn encode(&self, versions: Versions) -> Vec<u8> {
        let mut body = Vec::new();
        let (verdict, number, text) = match &self.verdict {
            Verdict::Accepted { version } => (0, u64::from(*version), ""),
            Verdict::Refused(refusal) => refusal.parts(),
        };
        body.put_u8(verdict);
        body.put_u64_le(number);
        put_text(&mut body, text);
        self.facts.encode(&mut body);
        envelop(versions, &body)
    }

    /// `caller` and `answerer` are what the two prefixes said.
    pub(crate) fn decode(
        body: &[u8],
        caller: Versions,
        answerer: Versions,
    ) -> Result<Self, Malformed> {
        let mut from = checked(body)?;
        let verdict = from.try_get_u8()?;
        let number = from.try_get_u64_le()?;
        let text = take_text(&mut from)?;
        let verdict = match verdict {
            0 => Verdict::Accepted { version: u16::try_from(number).map_err(|_| Malformed)? },
            1 => Verdict::Refused(Refusal::Version { caller, answerer }),
            2 => Verdict::Refused(Refusal::Group),
            3 => Verdict::Refused(Refusal::Members),
            4 => Verdict::Refused(Refusal::GroupId),
            5 => Verdict::Refused(Refusal::NotMember),
            6 => Verdict::Refused(Refusal::WrongReplica { wanted: ReplicaId(number) }),
            7 => Verdict::Refused(Refusal::SameReplica { address: text }),
            8 => {
                let connections_max = u32::try_from(number).map_err(|_| Malformed)?;
                Verdict::Refused(Refusal::Crowded { connections_max })
            }
            9 => Verdict::Refused(Refusal::Malformed),
            10 => Verdict::Refused(Refusal::Mode),
            _ => return Err(Malformed),
        };
        let facts = Facts::decode(&mut from)?;
        if from.has_remaining() {
            return Err(Malformed);
        }
        Ok(Self { verdict, facts })
    }
}

/// Whether `hello` may go on with the end that `here` describes; pure.
pub(crate) fn judge(hello: &Hello, here: &Facts) -> Result<(), Refusal> {
    let there = &hello.facts;
    if there.group_name != here.group_name {
        return Err(Refusal::Group);
    }
    if there.members != here.members {
        return Err(Refusal::Members);
    }
    if there.group != here.group {
        return Err(Refusal::GroupId);
    }
    if here.replica() != Some(hello.to) {
        return Err(Refusal::WrongReplica { wanted: hello.to });
    }
    match (there.role, hello.purpose) {
        (Role::Replica(id), _) if !here.members.contains(&id) => Err(Refusal::NotMember),
        (Role::Replica(_), _) if there.durability != here.durability => Err(Refusal::Mode),
        (Role::Client(_), Purpose::Link { carries: Carries::All, .. })
        | (Role::Replica(_), Purpose::Probe | Purpose::Knock) => Ok(()),
        (
            Role::Replica(id),
            Purpose::Link { carries: Carries::Control | Carries::Data | Carries::Bulk, .. },
        ) if dials(id, hello.to) => Ok(()),
        (Role::Client(_) | Role::Replica(_), _) => Err(Refusal::Malformed),
    }
}

/// Whether `replica` is the one of a pair that dials; the other one knocks.
pub(crate) fn dials(replica: ReplicaId, other: ReplicaId) -> bool {
    replica > other
}

/// Bytes that are no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl From<bytes::TryGetError> for Malformed {
    fn from(_: bytes::TryGetError) -> Self {
        Self
    }
}

/// Why there is no hello or no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The connection ended or broke.
    #[error("the connection ended during the handshake")]
    Io(#[from] io::Error),
    /// What came does not begin like a handshake.
    #[error("it does not speak this protocol")]
    NotOurs,
    /// The length is beyond what any version has.
    #[error("it announces a handshake of {bytes} bytes, more than the {BODY_BYTES_MAX} allowed")]
    TooLong {
        /// What was announced.
        bytes: u32,
    },
}

/// Reads one hello or answer: the other end's versions, and the body, not yet understood.
pub(crate) async fn read(stream: &mut TcpStream) -> Result<(Versions, Vec<u8>), ReadError> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    let (versions, length) = decode_prefix(&prefix)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((versions, body))
}

/// Versions and body length that a prefix names.
pub(crate) fn decode_prefix(prefix: &[u8; PREFIX_BYTES]) -> Result<(Versions, usize), ReadError> {
    let mut from = prefix.strip_prefix(&MAGIC).ok_or(ReadError::NotOurs)?;
    let versions = Versions { min: from.get_u16_le(), max: from.get_u16_le() };
    let bytes = from.get_u32_le();
    match usize::try_from(bytes) {
        Ok(length) if length <= BODY_BYTES_MAX => Ok((versions, length)),
        Ok(_) | Err(_) => Err(ReadError::TooLong { bytes }),
    }
}

/// Writes an encoded hello or answer.
pub(crate) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(message).await
}

/// Prefix, body and checksum.
fn envelop(versions: Versions, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(PREFIX_BYTES + body.len() + CHECKSUM_BYTES);
    message.extend_from_slice(&MAGIC);
    message.put_u16_le(versions.min);
    message.put_u16_le(versions.max);
    message.put_u32_le(u32::try_from(body.len() + CHECKSUM_BYTES).unwrap_or(u32::MAX));
    message.extend_from_slice(body);
    message.put_u32_le(crc32c::crc32c(body));
    message
}

/// The body without its checksum, which has been compared.
fn checked(body: &[u8]) -> Result<&[u8], Malformed> {
    let (body, checksum) = body.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Malformed)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(Malformed);
    }
    Ok(body)
}

fn put_text(into: &mut Vec<u8>, text: &str) {
    let text = text.get(..GROUP_NAME_BYTES_MAX).unwrap_or(text);
    put_length(into, text.len());
    into.extend_from_slice(text.as_bytes());
}

fn put_length(into: &mut Vec<u8>, length: usize) {
    into.put_u16_le(u16::try_from(length).unwrap_or(u16::MAX));
}

fn take_text(from: &mut &[u8]) -> Result<String, Malformed> {
    let length = usize::from(from.try_get_u16_le()?);
    if length > GROUP_NAME_BYTES_MAX {
        return Err(Malformed);
    }
    let (text, rest) = from.split_at_checked(length).ok_or(Malformed)?;
    *from = rest;
    std::str::from_utf8(text).map(str::to_owned).map_err(|_| Malformed)
}

const fn mode_number(mode: Option<Durability>) -> u8 {
    match mode {
        None => 0,
        Some(Durability::Full) => 1,
        Some(Durability::ViewOnly) => 2,
        Some(Durability::Diskless) => 3,
    }
}

const fn mode_of(number: u8) -> Result<Option<Durability>, Malformed> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(Durability::Full)),
        2 => Ok(Some(Durability::ViewOnly)),
        3 => Ok(Some(Durability::Diskless)),
        _ => Err(Malformed),
    }
}

const fn carries_number(carries: Carries) -> u8 {
    match carries {
        Carries::Control => 0,
        Carries::Data => 1,
        Carries::Bulk => 2,
        Carries::All => 3,
    }
}

const fn carries_of(number: u8) -> Result<Carries, Malformed> {
    match number {
        0 => Ok(Carries::Control),
        1 => Ok(Carries::Data),
        2 => Ok(Carries::Bulk),
        3 => Ok(Carries::All),
        _ => Err(Malformed),
    }
}

/// `[0, 1, 2]`.
struct List<'a>(&'a [ReplicaId]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (position, member) in self.0.iter().enumerate() {
            write!(f, "{}{member}", if position == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}
