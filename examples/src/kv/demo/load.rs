//! One client of the demo: a mixed load on one replica after the other, and what was promised.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use tokio::time::sleep;

use crate::kv::client::RedisClient;

/// How long a client waits after every replica has refused it.
const RECONNECT_PAUSE: Duration = Duration::from_millis(2);
/// The longest latency that is told apart, in microseconds.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// What all clients of a demo share.
#[derive(Debug)]
pub struct Shared {
    /// Where the replicas serve.
    pub addresses: Vec<SocketAddr>,
    /// Bytes of each written value.
    pub value_bytes: usize,
    /// When the load began.
    pub begun: Instant,
    /// Set when the load is over.
    pub stop: AtomicBool,
    /// How many writes were acknowledged so far.
    pub acknowledged: AtomicU64,
}

/// What one client did and was promised.
#[derive(Debug)]
pub struct Record {
    /// Operations sent.
    pub operations: u64,
    /// Operations answered with success.
    pub acknowledged: u64,
    /// Writes whose outcome was never told.
    pub unknown: u64,
    /// Reads that were not answered.
    pub unanswered: u64,
    /// Operations that were answered with "not executed".
    pub refused: u64,
    /// Latencies of what was acknowledged, in microseconds.
    pub latencies: Histogram<u64>,
    /// When each acknowledged write was sent and acknowledged, in microseconds since the load
    /// began.
    pub writes: Vec<(u64, u64)>,
    /// Every acknowledged key with its value.
    pub written: BTreeMap<String, Vec<u8>>,
    /// The counter that only this client increments.
    pub counter: Counter,
    /// Reads that did not return what had been acknowledged.
    pub wrong_reads: u64,
}

/// What the increments of one counter must come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The last value returned.
    pub last: u64,
    /// Increments of unknown outcome that have not shown up in a returned value.
    pub open: u64,
    /// Increments that a returned value shows to be lost.
    pub lost: u64,
    /// Increments that a returned value shows to be applied more than once.
    pub doubled: u64,
}

impl Counter {
    /// An increment was acknowledged with `value`.
    pub fn acknowledge(&mut self, value: u64) {
        let expected = self.last + 1;
        self.judge(value, expected);
        self.last = value.max(expected);
    }

    /// The counter holds `value` in the end.
    pub fn finish(&mut self, value: u64) {
        self.judge(value, self.last);
    }

    fn judge(&mut self, value: u64, expected: u64) {
        self.lost += expected.saturating_sub(value);
        let surplus = value.saturating_sub(expected);
        self.doubled += surplus.saturating_sub(self.open);
        self.open = self.open.saturating_sub(surplus);
    }
}

/// The client with its connection, its dice and its record.
#[derive(Debug)]
pub struct Worker<'a> {
    shared: &'a Shared,
    name: usize,
    target: usize,
    connection: Option<RedisClient>,
    dice: u64,
    next_key: u64,
    record: Record,
}

/// What one operation came to.
enum Outcome {
    Done(BytesFrame),
    Refused,
    Unknown,
}

impl<'a> Worker<'a> {
    /// Client `name`; it begins at the replica of that number, modulo how many there are.
    ///
    /// # Errors
    /// The histogram's bounds are wrong, which they are not.
    pub fn new(
        shared: &'a Shared,
        name: usize,
        seed: u64,
    ) -> Result<Self, hdrhistogram::CreationError> {
        let record = Record {
            operations: 0,
            acknowledged: 0,
            unknown: 0,
            unanswered: 0,
            refused: 0,
            latencies: Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)?,
            writes: Vec::new(),
            written: BTreeMap::new(),
            counter: Counter::default(),
            wrong_reads: 0,
        };
        let spread = u64::try_from(name).unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let dice = (seed ^ spread).max(1);
        Ok(Self { shared, name, target: name, connection: None, dice, next_key: 0, record })
    }

    /// The counter that only client `name` increments.
    #[must_use]
    pub fn counter_key(name: usize) -> String {
        format!("counter:{name}")
    }

    /// Sends one operation after the other until the load is over.
    pub async fn run(mut self) -> Record {
        while !self.shared.stop.load(Ordering::Relaxed) {
            match self.roll(100) {
                0..45 => self.set().await,
                45..65 => self.increment().await,
                65..70 => self.set_two().await,
                _ => self.read().await,
            }
        }
        self.record
    }

    async fn set(&mut self) {
        let (key, value) = self.fresh();
        let words = [b"SET".to_vec(), key.clone().into_bytes(), value.clone()];
        if let Outcome::Done(_) = self.operate(&words, true).await {
            self.record.written.insert(key, value);
        }
    }

    async fn set_two(&mut self) {
        let (one, other) = (self.fresh(), self.fresh());
        let mut words = vec![b"MSET".to_vec()];
        for (key, value) in [&one, &other] {
            words.extend([key.clone().into_bytes(), value.clone()]);
        }
        if let Outcome::Done(_) = self.operate(&words, true).await {
            self.record.written.extend([one, other]);
        }
    }

    async fn increment(&mut self) {
        let words = [b"INCR".to_vec(), Self::counter_key(self.name).into_bytes()];
        match self.operate(&words, true).await {
            Outcome::Done(BytesFrame::Integer(value)) => {
                self.record.counter.acknowledge(u64::try_from(value).unwrap_or(0));
            }
            Outcome::Unknown => self.record.counter.open += 1,
            Outcome::Done(_) | Outcome::Refused => {}
        }
    }

    async fn read(&mut self) {
        let number = self.roll(self.next_key.max(1));
        let key = self.key(number);
        let words = [b"GET".to_vec(), key.clone().into_bytes()];
        if let Outcome::Done(value) = self.operate(&words, false).await
            && let Some(promised) = self.record.written.get(&key)
            && value.as_bytes() != Some(promised)
        {
            self.record.wrong_reads += 1;
        }
    }

    fn key(&self, number: u64) -> String {
        format!("key:{}:{number}", self.name)
    }

    /// A key that was never used, and a value that no other key has.
    fn fresh(&mut self) -> (String, Vec<u8>) {
        let key = self.key(self.next_key);
        self.next_key += 1;
        let mut value = key.clone().into_bytes();
        value.resize(self.shared.value_bytes.max(value.len()), b'.');
        (key, value)
    }

    /// Sends one operation, and counts what it came to.
    async fn operate(&mut self, words: &[Vec<u8>], is_write: bool) -> Outcome {
        if self.connect().await.is_none() {
            return Outcome::Refused;
        }
        let begun = Instant::now();
        self.record.operations += 1;
        let outcome = match self.call(words).await {
            Ok(BytesFrame::Error(text)) if text.starts_with("UNCERTAIN") => Outcome::Unknown,
            Ok(BytesFrame::Error(_)) => Outcome::Refused,
            Ok(answer) => Outcome::Done(answer),
            Err(_) => {
                self.connection = None;
                self.target += 1;
                Outcome::Unknown
            }
        };
        match &outcome {
            Outcome::Done(_) => self.count_acknowledged(begun, is_write),
            Outcome::Unknown if is_write => self.record.unknown += 1,
            Outcome::Refused => {
                self.record.refused += 1;
                sleep(RECONNECT_PAUSE).await;
            }
            Outcome::Unknown => self.record.unanswered += 1,
        }
        outcome
    }

    async fn call(&mut self, words: &[Vec<u8>]) -> io::Result<BytesFrame> {
        match &mut self.connection {
            Some(connection) => connection.call(words).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn count_acknowledged(&mut self, begun: Instant, is_write: bool) {
        self.record.acknowledged += 1;
        self.record.latencies.saturating_record(micros(begun.elapsed()));
        if is_write {
            let sent = begun.saturating_duration_since(self.shared.begun);
            self.record.writes.push((micros(sent), micros(self.shared.begun.elapsed())));
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connects to the next replica that answers; `None` when the load is over before.
    async fn connect(&mut self) -> Option<()> {
        while self.connection.is_none() {
            let count = self.shared.addresses.len();
            for _ in 0..count {
                let address = self.shared.addresses.get(self.target.checked_rem(count)?)?;
                match RedisClient::connect(*address).await {
                    Ok(connection) => {
                        self.connection = Some(connection);
                        return Some(());
                    }
                    Err(_) => self.target += 1,
                }
            }
            if self.shared.stop.load(Ordering::Relaxed) {
                return None;
            }
            sleep(RECONNECT_PAUSE).await;
        }
        Some(())
    }

    /// A number below `sides`; xorshift, so that a seed repeats the same choices.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides.max(1)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(last: u64, open: u64) -> Counter {
        Counter { last, open, ..Counter::default() }
    }

    #[test]
    fn an_open_increment_may_show_up_late_but_once() {
        let mut seen = counter(5, 1);
        seen.acknowledge(6);
        seen.finish(7);
        assert_eq!((seen.lost, seen.doubled), (0, 0));
        let mut twice = counter(6, 1);
        twice.finish(8);
        assert_eq!((twice.lost, twice.doubled), (0, 1));
    }

    #[test]
    fn a_value_too_high_is_a_double_and_one_too_low_a_loss() {
        let mut doubled = counter(5, 0);
        doubled.acknowledge(7);
        assert_eq!((doubled.lost, doubled.doubled), (0, 1));
        let mut lost = counter(5, 3);
        lost.acknowledge(5);
        assert_eq!((lost.lost, lost.doubled), (1, 0));
    }
}
