//! No protocol: the same bytes along the same path, one write and one sync, nothing else.

use anyhow::Context as _;
use bytes::Bytes;

use crate::engine::{Engine, REPLICAS, Wal};

/// Replica 0 passes operations on, and answers when one of the others says that it has them.
pub struct Floor {
    me: usize,
    wal: Option<Wal>,
    /// Operations that replica 0 has taken.
    count: u64,
    /// Operations since the last turn, as they travel.
    batch: Vec<u8>,
    /// Their tags, in order, from `answered` on.
    tags: std::collections::VecDeque<u64>,
    answered: u64,
    /// The most that another replica has.
    confirmed: u64,
    has_news: bool,
}

pub enum Message {
    /// The count after these operations, and their bytes.
    Batch(u64, Vec<u8>),
    /// Everything up to this count is here.
    Confirmed(u64),
}

impl Engine for Floor {
    type Message = Message;

    const NAME: &'static str = "floor";

    fn new(me: usize, wal: Option<Wal>) -> anyhow::Result<Self> {
        Ok(Self {
            me,
            wal,
            count: 0,
            batch: Vec::new(),
            tags: std::collections::VecDeque::new(),
            answered: 0,
            confirmed: 0,
            has_news: false,
        })
    }

    fn tick(&mut self) {}

    fn leads(&self) -> bool {
        self.me == 0
    }

    fn propose(&mut self, tag: u64, payload: Bytes) {
        self.count += 1;
        self.tags.push_back(tag);
        self.batch.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.batch.extend_from_slice(&payload);
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Batch(count, bytes) => {
                if let Some(wal) = &mut self.wal {
                    wal.push(&[&bytes]);
                }
                (self.count, self.has_news) = (count, true);
            }
            Message::Confirmed(count) => self.confirmed = self.confirmed.max(count),
        }
    }

    fn before_sync(&mut self, out: &mut Vec<(usize, Message)>) {
        if self.batch.is_empty() {
            return;
        }
        for to in 1..REPLICAS {
            out.push((to, Message::Batch(self.count, self.batch.clone())));
        }
        if let Some(wal) = &mut self.wal {
            wal.push(&[&self.batch]);
        }
        self.batch.clear();
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.wal.as_mut().map_or(Ok(()), Wal::sync)
    }

    fn after_sync(&mut self, out: &mut Vec<(usize, Message)>, done: &mut Vec<u64>) -> bool {
        if std::mem::take(&mut self.has_news) {
            out.push((0, Message::Confirmed(self.count)));
        }
        let news = self.confirmed.saturating_sub(self.answered) as usize;
        done.extend(self.tags.drain(..news.min(self.tags.len())));
        self.answered = self.answered.max(self.confirmed);
        false
    }

    fn encode(message: &Message, into: &mut Vec<u8>) {
        let (kind, count, bytes): (u8, u64, &[u8]) = match message {
            Message::Batch(count, bytes) => (0, *count, bytes),
            Message::Confirmed(count) => (1, *count, &[]),
        };
        into.push(kind);
        into.extend_from_slice(&count.to_le_bytes());
        into.extend_from_slice(bytes);
    }

    fn decode(bytes: &[u8]) -> anyhow::Result<Message> {
        let (kind, rest) = bytes.split_first().context("an empty message")?;
        let (count, rest) = rest.split_first_chunk::<8>().context("a short message")?;
        let count = u64::from_le_bytes(*count);
        Ok(if *kind == 0 {
            Message::Batch(count, rest.to_vec())
        } else {
            Message::Confirmed(count)
        })
    }
}
