//! The replicated state: keys, values and expiries; time is only ever the operation's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    time::Duration,
};

use bytes::Bytes;
use vr_core::{
    Context, QueryContext, SnapshotError, SnapshotReader, SnapshotWriter, StateMachine,
    model::types::Checksum,
};

use crate::kv::{
    command::{Command, Condition, Expiry, Failure, Question, Value, integer},
    glob,
};

/// The most bytes of one value; a longer one is refused.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The most bytes of all keys and values; beyond it, commands that add are refused.
pub const STATE_BYTES_MAX: u64 = 4 << 30;
/// About the most bytes of replies in one operation; commands beyond it are left undone.
pub const REPLY_BYTES_MAX: usize = 1 << 20;
/// The most bytes of one question's answer; a larger one is refused.
pub const ANSWER_BYTES_MAX: usize = 3 << 20;
/// The most expired keys that one operation removes; the others are invisible already.
pub const EXPIRED_KEYS_PER_OPERATION_MAX: usize = 64;
/// The most keys that one `SCAN` looks at.
pub const SCAN_KEYS_MAX: u64 = 10_000;
/// What a key costs besides its own bytes and its value's, as counted against
/// [`STATE_BYTES_MAX`].
const KEY_OVERHEAD_BYTES: u64 = 64;

/// The key-value store that every replica holds.
///
/// Invariants: `expiries` holds exactly the keys that have an expiry, by time; `bytes` is the sum
/// of what `entries` cost.
#[derive(Clone, Debug)]
pub struct Kv {
    entries: BTreeMap<Place, Held>,
    expiries: BTreeSet<(u64, Place)>,
    bytes: u64,
    bytes_max: u64,
}

/// Where a key stands: by hash first, so that a number can say how far a `SCAN` has come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    hash: u64,
    key: Bytes,
}

impl Place {
    fn of(key: &Bytes) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = Checksum::of(key).0.to_le_bytes();
        // Zero starts a scan, so nothing may stand there.
        let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1);
        Self { hash, key: key.clone() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    value: Bytes,
    /// Milliseconds since 1970 at which the key dies.
    expires_at: Option<u64>,
}

impl Held {
    fn is_alive(&self, now: u64) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

impl Default for Kv {
    fn default() -> Self {
        Self::with_bytes_max(STATE_BYTES_MAX)
    }
}

impl Kv {
    /// An empty store that refuses to grow beyond `bytes_max`; the same on every replica.
    #[must_use]
    pub const fn with_bytes_max(bytes_max: u64) -> Self {
        Self { entries: BTreeMap::new(), expiries: BTreeSet::new(), bytes: 0, bytes_max }
    }

    fn alive(&self, place: &Place, now: u64) -> Option<&Held> {
        self.entries.get(place).filter(|held| held.is_alive(now))
    }

    fn remove(&mut self, place: &Place) -> Option<Held> {
        let held = self.entries.remove(place)?;
        self.bytes = self.bytes.saturating_sub(cost(place, &held));
        if let Some(at) = held.expires_at {
            self.expiries.remove(&(at, place.clone()));
        }
        Some(held)
    }

    fn write(&mut self, place: Place, value: Bytes, expires_at: Option<u64>) {
        self.remove(&place);
        if let Some(at) = expires_at {
            self.expiries.insert((at, place.clone()));
        }
        let held = Held { value, expires_at };
        self.bytes = self.bytes.saturating_add(cost(&place, &held));
        self.entries.insert(place, held);
    }

    /// Removes a bounded number of expired keys, oldest first.
    fn expire(&mut self, now: u64) {
        for _ in 0..EXPIRED_KEYS_PER_OPERATION_MAX {
            match self.expiries.first() {
                Some((at, place)) if *at <= now => {
                    let place = place.clone();
                    self.remove(&place);
                }
                Some(_) | None => return,
            }
        }
    }

    fn command(&mut self, now: u64, command: Command) -> Value {
        let done = match command {
            Command::Set { key, value, condition, expiry, return_old } => {
                self.set(now, Place::of(&key), Written { value, condition, expiry, return_old })
            }
            Command::GetDel(key) => Ok(self.get_del(now, &Place::of(&key))),
            Command::MSet(pairs) => self.mset(pairs),
            Command::Del(keys) => Ok(self.del(now, &keys)),
            Command::IncrBy(key, by) => self.incr_by(now, Place::of(&key), by),
            Command::Append(key, tail) => self.append(now, Place::of(&key), &tail),
            Command::Expire(key, millis) => Ok(self.expire_in(now, Place::of(&key), millis)),
            Command::Persist(key) => Ok(self.persist(now, Place::of(&key))),
            Command::FlushAll => Ok(self.flush_all()),
            Command::Cas { key, old, new } => self.cas(now, Place::of(&key), &old, new),
        };
        done.unwrap_or_else(Value::Failed)
    }

    /// Whether a command that adds `value` may run.
    fn require_room(&self, value: usize) -> Result<(), Failure> {
        if value > VALUE_BYTES_MAX {
            return Err(Failure::ValueTooLong);
        }
        if self.bytes >= self.bytes_max {
            return Err(Failure::OutOfMemory);
        }
        Ok(())
    }

    fn set(&mut self, now: u64, place: Place, written: Written) -> Result<Value, Failure> {
        self.require_room(written.value.len())?;
        let before = self.alive(&place, now).cloned();
        let writes = match written.condition {
            Condition::Always => true,
            Condition::IfAbsent => before.is_none(),
            Condition::IfPresent => before.is_some(),
        };
        if writes {
            let expires_at = match written.expiry {
                Expiry::Never => None,
                Expiry::Keep => before.as_ref().and_then(|held| held.expires_at),
                Expiry::AfterMillis(millis) => Some(now.saturating_add(millis)),
            };
            self.write(place, written.value, expires_at);
        }
        Ok(match (written.return_old, writes) {
            (true, _) => before.map_or(Value::Nil, |held| Value::Bulk(held.value)),
            (false, true) => Value::Ok,
            (false, false) => Value::Nil,
        })
    }

    fn get_del(&mut self, now: u64, place: &Place) -> Value {
        let held = self.remove(place).filter(|held| held.is_alive(now));
        held.map_or(Value::Nil, |held| Value::Bulk(held.value))
    }

    fn mset(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<Value, Failure> {
        for (_, value) in &pairs {
            self.require_room(value.len())?;
        }
        for (key, value) in pairs {
            self.write(Place::of(&key), value, None);
        }
        Ok(Value::Ok)
    }

    fn del(&mut self, now: u64, keys: &[Bytes]) -> Value {
        count(
            keys.iter()
                .filter(|key| self.remove(&Place::of(key)).is_some_and(|held| held.is_alive(now))),
        )
    }

    fn incr_by(&mut self, now: u64, place: Place, by: i64) -> Result<Value, Failure> {
        self.require_room(0)?;
        let (number, expires_at) = match self.alive(&place, now) {
            Some(held) => (integer(&held.value).ok_or(Failure::NotAnInteger)?, held.expires_at),
            None => (0, None),
        };
        let sum = number.checked_add(by).ok_or(Failure::WouldOverflow)?;
        self.write(place, Bytes::from(sum.to_string()), expires_at);
        Ok(Value::Integer(sum))
    }

    fn append(&mut self, now: u64, place: Place, tail: &Bytes) -> Result<Value, Failure> {
        let (head, expires_at) = self
            .alive(&place, now)
            .map_or((Bytes::new(), None), |held| (held.value.clone(), held.expires_at));
        self.require_room(head.len().saturating_add(tail.len()))?;
        let whole = Bytes::from([head.as_ref(), tail.as_ref()].concat());
        let length = length(whole.len());
        self.write(place, whole, expires_at);
        Ok(length)
    }

    fn expire_in(&mut self, now: u64, place: Place, millis: i64) -> Value {
        let Some(held) = self.alive(&place, now) else { return Value::Integer(0) };
        let value = held.value.clone();
        match u64::try_from(millis) {
            Ok(millis) if millis > 0 => self.write(place, value, Some(now.saturating_add(millis))),
            Ok(_) | Err(_) => {
                self.remove(&place);
            }
        }
        Value::Integer(1)
    }

    fn persist(&mut self, now: u64, place: Place) -> Value {
        let Some(held) = self.alive(&place, now).filter(|held| held.expires_at.is_some()) else {
            return Value::Integer(0);
        };
        let value = held.value.clone();
        self.write(place, value, None);
        Value::Integer(1)
    }

    fn flush_all(&mut self) -> Value {
        self.entries.clear();
        self.expiries.clear();
        self.bytes = 0;
        Value::Ok
    }

    fn cas(&mut self, now: u64, place: Place, old: &Bytes, new: Bytes) -> Result<Value, Failure> {
        self.require_room(new.len())?;
        let Some(held) = self.alive(&place, now).filter(|held| held.value == old) else {
            return Ok(Value::Integer(0));
        };
        let expires_at = held.expires_at;
        self.write(place, new, expires_at);
        Ok(Value::Integer(1))
    }

    fn question(&self, now: u64, question: &Question) -> Value {
        match question {
            Question::Get(key) => self.get(now, key),
            Question::MGet(keys) => array(keys.iter().map(|key| self.get(now, key))),
            Question::Exists(keys) => {
                count(keys.iter().filter(|key| self.alive(&Place::of(key), now).is_some()))
            }
            Question::StrLen(key) => {
                length(self.alive(&Place::of(key), now).map_or(0, |held| held.value.len()))
            }
            Question::Ttl(key) => self.time_to_live(now, key, |millis| (millis + 500) / 1000),
            Question::PTtl(key) => self.time_to_live(now, key, |millis| millis),
            Question::Keys(pattern) => array(
                self.entries
                    .iter()
                    .filter(|(place, held)| {
                        held.is_alive(now) && glob::matches(pattern, &place.key)
                    })
                    .map(|(place, _)| Value::Bulk(place.key.clone())),
            ),
            Question::Scan { cursor, pattern, count } => {
                self.scan(now, *cursor, pattern.as_ref(), *count)
            }
            Question::DbSize => {
                let unborn = Place { hash: 0, key: Bytes::new() };
                let dead = self.expiries.range(..(now.saturating_add(1), unborn)).count();
                length(self.entries.len().saturating_sub(dead))
            }
        }
    }

    fn get(&self, now: u64, key: &Bytes) -> Value {
        let held = self.alive(&Place::of(key), now);
        held.map_or(Value::Nil, |held| Value::Bulk(held.value.clone()))
    }

    /// -2 for no key, -1 for no expiry.
    fn time_to_live(&self, now: u64, key: &Bytes, unit: impl Fn(u64) -> u64) -> Value {
        let Some(held) = self.alive(&Place::of(key), now) else { return Value::Integer(-2) };
        let Some(at) = held.expires_at else { return Value::Integer(-1) };
        Value::Integer(i64::try_from(unit(at.saturating_sub(now))).unwrap_or(i64::MAX))
    }

    /// Looks at about `count` keys from `cursor` on. Keys of one hash are never split, so a key
    /// that stays throughout a whole scan is returned at least once.
    fn scan(&self, now: u64, cursor: u64, pattern: Option<&Bytes>, count: u64) -> Value {
        let from = Place { hash: cursor, key: Bytes::new() };
        let wanted = count.clamp(1, SCAN_KEYS_MAX);
        let (mut seen, mut last, mut next) = (0_u64, cursor, 0);
        let mut keys = Vec::new();
        for (place, held) in self.entries.range(from..) {
            if seen >= wanted && place.hash != last {
                next = place.hash;
                break;
            }
            (seen, last) = (seen + 1, place.hash);
            if held.is_alive(now) && pattern.is_none_or(|p| glob::matches(p, &place.key)) {
                keys.push(Value::Bulk(place.key.clone()));
            }
        }
        array([Value::Bulk(Bytes::from(next.to_string())), array(keys)])
    }
}

/// What a `SET` brings, besides the key.
struct Written {
    value: Bytes,
    condition: Condition,
    expiry: Expiry,
    return_old: bool,
}

fn cost(place: &Place, held: &Held) -> u64 {
    let bytes = place.key.len().saturating_add(held.value.len());
    u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(KEY_OVERHEAD_BYTES)
}

fn count<T>(items: impl Iterator<Item = T>) -> Value {
    length(items.count())
}

fn length(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The values as one, unless they are more than one answer can carry.
fn array(values: impl IntoIterator<Item = Value>) -> Value {
    let mut bytes = 0_usize;
    let mut all = Vec::new();
    for value in values {
        if value == Value::Failed(Failure::AnswerTooLarge) {
            return value;
        }
        bytes = bytes.saturating_add(value.bytes());
        if bytes > ANSWER_BYTES_MAX {
            return Value::Failed(Failure::AnswerTooLarge);
        }
        all.push(value);
    }
    Value::Array(all)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Takes values until they are about [`REPLY_BYTES_MAX`], at least one.
fn as_many_as_fit(values: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut bytes = 0_usize;
    let mut taken = Vec::new();
    for value in values {
        bytes = bytes.saturating_add(value.bytes());
        taken.push(value);
        if bytes >= REPLY_BYTES_MAX {
            break;
        }
    }
    taken
}

impl StateMachine for Kv {
    /// Commands that one client sent in one go; executed in order.
    type Operation = Vec<Command>;
    /// A value for each command that was executed: all, or as many as fill a reply, at least one.
    /// The client sends the others again.
    type Reply = Vec<Value>;
    /// Questions about one and the same state.
    type Query = Vec<Question>;
    /// As [`Self::Reply`].
    type Answer = Vec<Value>;

    fn apply(&mut self, context: &Context, commands: Vec<Command>) -> Vec<Value> {
        let now = millis(context.time);
        self.expire(now);
        as_many_as_fit(commands.into_iter().map(|command| self.command(now, command)))
    }

    fn query(&self, context: &QueryContext, questions: Vec<Question>) -> Vec<Value> {
        let now = millis(context.time);
        as_many_as_fit(questions.iter().map(|question| self.question(now, question)))
    }

    fn snapshot(&self, out: &mut SnapshotWriter<'_>) -> Result<(), SnapshotError> {
        out.write_all(&u64::try_from(self.entries.len()).unwrap_or(u64::MAX).to_le_bytes())?;
        for (place, held) in &self.entries {
            write_bytes(out, &place.key)?;
            write_bytes(out, &held.value)?;
            out.write_all(&held.expires_at.map_or(0, |at| at.saturating_add(1)).to_le_bytes())?;
        }
        Ok(())
    }

    fn restore(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        let mut restored = Self::with_bytes_max(self.bytes_max);
        for _ in 0..read_number(from)? {
            let (key, value) = (read_bytes(from)?, read_bytes(from)?);
            let expires_at = read_number(from)?.checked_sub(1);
            restored.write(Place::of(&key), value, expires_at);
        }
        *self = restored;
        Ok(())
    }
}

fn write_bytes(out: &mut SnapshotWriter<'_>, bytes: &[u8]) -> Result<(), SnapshotError> {
    out.write_all(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes())?;
    Ok(out.write_all(bytes)?)
}

fn read_number(from: &mut SnapshotReader<'_>) -> Result<u64, SnapshotError> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Grows with what arrives, so that a wrong length cannot ask for more memory than there is.
fn read_bytes(from: &mut SnapshotReader<'_>) -> Result<Bytes, SnapshotError> {
    let length = read_number(from)?;
    let mut bytes = Vec::new();
    let read = from.take(length).read_to_end(&mut bytes)?;
    if u64::try_from(read) != Ok(length) {
        return Err(SnapshotError::Unreadable);
    }
    Ok(Bytes::from(bytes))
}
