//! What the key-value service can be asked, and what it answers; these travel through the log.

use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A change of the state; a replicated operation is a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// `SET key value [EX s | PX ms | KEEPTTL] [NX | XX] [GET]`.
    Set {
        /// Where.
        key: Bytes,
        /// What.
        value: Bytes,
        /// When it may be written at all.
        condition: Condition,
        /// What becomes of the key's expiry.
        expiry: Expiry,
        /// Whether the reply is the value before.
        return_old: bool,
    },
    /// `GETDEL key`.
    GetDel(Bytes),
    /// `MSET key value [key value ..]`.
    MSet(Vec<(Bytes, Bytes)>),
    /// `DEL key [key ..]`.
    Del(Vec<Bytes>),
    /// `INCR`, `INCRBY`, `DECR` and `DECRBY`.
    IncrBy(Bytes, i64),
    /// `APPEND key value`.
    Append(Bytes, Bytes),
    /// `EXPIRE` and `PEXPIRE`: milliseconds from now; zero or less deletes the key.
    Expire(Bytes, i64),
    /// `PERSIST key`.
    Persist(Bytes),
    /// `FLUSHALL`.
    FlushAll,
    /// `CAS key old new`: writes `new` if the value is `old`; the expiry stays.
    Cas {
        /// Where.
        key: Bytes,
        /// What must be there.
        old: Bytes,
        /// What is written then.
        new: Bytes,
    },
}

impl Command {
    /// An upper bound of the bytes that this command takes in an operation.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let payload = match self {
            Self::Set { key, value, .. } | Self::Append(key, value) => key.len() + value.len(),
            Self::GetDel(key)
            | Self::IncrBy(key, _)
            | Self::Expire(key, _)
            | Self::Persist(key) => key.len(),
            Self::MSet(pairs) => {
                pairs.iter().map(|(key, value)| key.len() + value.len() + 20).sum()
            }
            Self::Del(keys) => keys.iter().map(|key| key.len() + 10).sum(),
            Self::FlushAll => 0,
            Self::Cas { key, old, new } => key.len() + old.len() + new.len(),
        };
        payload + COMMAND_OVERHEAD_BYTES
    }
}

/// Covers a command's tag, its numbers and the lengths of its strings.
const COMMAND_OVERHEAD_BYTES: usize = 48;

/// When a `SET` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// `NX`: only if the key does not exist.
    IfAbsent,
    /// `XX`: only if the key exists.
    IfPresent,
}

/// What a `SET` does to the key's expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expiry {
    /// The key lives until it is deleted.
    #[default]
    Never,
    /// `KEEPTTL`: as before.
    Keep,
    /// `EX`, `PX`: the key dies this many milliseconds after the operation's replicated time.
    AfterMillis(u64),
}

/// A question about the state; a query is a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// `GET key`.
    Get(Bytes),
    /// `MGET key [key ..]`.
    MGet(Vec<Bytes>),
    /// `EXISTS key [key ..]`.
    Exists(Vec<Bytes>),
    /// `STRLEN key`.
    StrLen(Bytes),
    /// `TTL key`: seconds, rounded.
    Ttl(Bytes),
    /// `PTTL key`: milliseconds.
    PTtl(Bytes),
    /// `KEYS pattern`.
    Keys(Bytes),
    /// `SCAN cursor [MATCH pattern] [COUNT n]`.
    Scan {
        /// Where to go on; 0 starts.
        cursor: u64,
        /// Which keys to return; all when absent.
        pattern: Option<Bytes>,
        /// About how many keys to look at.
        count: u64,
    },
    /// `DBSIZE`.
    DbSize,
}

impl Question {
    /// An upper bound of the bytes that this question takes in a query.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let payload = match self {
            Self::Get(word)
            | Self::StrLen(word)
            | Self::Ttl(word)
            | Self::PTtl(word)
            | Self::Keys(word) => word.len(),
            Self::MGet(keys) | Self::Exists(keys) => keys.iter().map(|key| key.len() + 10).sum(),
            Self::Scan { pattern, .. } => pattern.as_ref().map_or(0, Bytes::len),
            Self::DbSize => 0,
        };
        payload + COMMAND_OVERHEAD_BYTES
    }
}

/// What a command or a question returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// It is done.
    Ok,
    /// There is nothing.
    Nil,
    /// A number.
    Integer(i64),
    /// A value.
    Bulk(Bytes),
    /// Several values.
    Array(Vec<Self>),
    /// It was refused, and nothing changed.
    Failed(Failure),
}

impl Value {
    /// About how many bytes this takes in a reply.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Ok | Self::Nil | Self::Integer(_) | Self::Failed(_) => 16,
            Self::Bulk(bytes) => bytes.len() + 16,
            Self::Array(values) => values.iter().map(Self::bytes).sum::<usize>() + 16,
        }
    }
}

/// Why the state machine refused; the same on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The value, or the key's value, is not a 64-bit number.
    NotAnInteger,
    /// The sum does not fit into 64 bits.
    WouldOverflow,
    /// The value would exceed [`VALUE_BYTES_MAX`](crate::kv::state::VALUE_BYTES_MAX).
    ValueTooLong,
    /// The state has reached [`STATE_BYTES_MAX`](crate::kv::state::STATE_BYTES_MAX).
    OutOfMemory,
    /// The answer would exceed [`ANSWER_BYTES_MAX`](crate::kv::state::ANSWER_BYTES_MAX).
    AnswerTooLarge,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnInteger => "ERR value is not an integer or out of range",
            Self::WouldOverflow => "ERR increment or decrement would overflow",
            Self::ValueTooLong => "ERR string exceeds maximum allowed size (1 MiB per value)",
            Self::OutOfMemory => "OOM command not allowed when used memory > 'maxmemory'.",
            Self::AnswerTooLarge => {
                "ERR the reply exceeds 3 MiB; ask for fewer keys at once, or use SCAN"
            }
        })
    }
}

/// The number that `text` spells in Redis's one accepted way: no sign `+`, no leading zeros.
#[must_use]
pub fn integer(text: &[u8]) -> Option<i64> {
    let text = core::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        let table: [(&[u8], Option<i64>); 8] = [
            (b"0", Some(0)),
            (b"-1", Some(-1)),
            (b"9223372036854775807", Some(i64::MAX)),
            (b"9223372036854775808", None),
            (b"+1", None),
            (b"01", None),
            (b" 1", None),
            (b"-0", None),
        ];
        for (text, number) in table {
            assert_eq!(integer(text), number, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_command_is_never_larger_than_it_says() {
        let long = Bytes::from(vec![b'x'; 70_000]);
        let commands = [
            Command::FlushAll,
            Command::IncrBy(long.clone(), i64::MIN),
            Command::MSet(vec![(long.clone(), long.clone()); 3]),
            Command::Del(vec![long.clone(), Bytes::new()]),
            Command::Cas { key: long.clone(), old: long.clone(), new: long },
        ];
        for command in commands {
            let encoded = postcard::to_allocvec(&command).unwrap();
            assert!(encoded.len() <= command.bytes(), "{} bytes", encoded.len());
        }
    }
}
