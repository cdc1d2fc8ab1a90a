//! raft 0.7 (tikv): batched appends, deep pipelines, messages of the leader before its own sync.

use bytes::Bytes;
use protobuf::Message as _;
use raft::{
    Config, RawNode, Ready, StateRole,
    eraftpb::{ConfState, Entry, Message},
    storage::MemStorage,
};

use crate::{
    engine::{Engine, LOG_KEPT, LOG_OPS, REPLICAS, Wal},
    raft_engine_log::EngineLog,
};

pub struct Raft {
    node: RawNode<MemStorage>,
    store: MemStorage,
    ready: Option<Ready>,
    disk: Disk,
    is_elected: bool,
    compacted: u64,
}

/// Where entries and votes are made durable.
pub enum Disk {
    /// Nowhere
    None,
    /// In a zero-filled file
    File(Wal),
    /// In the log that the same project brings with it
    Engine(EngineLog),
}

impl Disk {
    fn sync(&mut self, ready: &Ready) -> anyhow::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Engine(log) => log.sync(ready),
            Self::File(wal) => {
                for entry in ready.entries() {
                    let numbers = [entry.term.to_le_bytes(), entry.index.to_le_bytes()].concat();
                    wal.push(&[&numbers, &entry.context, &entry.data]);
                }
                if let Some(state) = ready.hs() {
                    wal.push(&[&state.write_to_bytes()?]);
                }
                wal.sync()
            }
        }
    }
}

impl Raft {
    /// Replica `me` of three, with a disk.
    pub fn with(me: usize, disk: Disk) -> anyhow::Result<Self> {
        let config = Config {
            id: me as u64 + 1,
            election_tick: 30,
            heartbeat_tick: 10,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 4096,
            batch_append: true,
            pre_vote: true,
            check_quorum: true,
            ..Config::default()
        };
        let store = MemStorage::new_with_conf_state(ConfState {
            voters: (1..=REPLICAS as u64).collect(),
            ..ConfState::default()
        });
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, store.clone(), &logger)?;
        Ok(Self { node, store, ready: None, disk, is_elected: false, compacted: 0 })
    }

    fn take(&mut self, entries: Vec<Entry>, done: &mut Vec<u64>) {
        for entry in entries {
            if let Ok(tag) = <[u8; 8]>::try_from(&entry.context[..]) {
                done.push(u64::from_le_bytes(tag));
            }
            self.is_elected = true;
        }
    }
}

impl Engine for Raft {
    type Message = Message;

    const NAME: &'static str = "raft 0.7";

    fn new(me: usize, wal: Option<Wal>) -> anyhow::Result<Self> {
        Self::with(me, wal.map_or(Disk::None, Disk::File))
    }

    fn tick(&mut self) {
        self.node.tick();
        let applied = self.node.raft.raft_log.applied();
        if let Disk::Engine(log) = &mut self.disk {
            log.let_go(applied);
        }
        if applied > self.compacted + LOG_OPS + LOG_KEPT {
            self.compacted = applied - LOG_KEPT;
            // The first index is not beyond the last one, so nothing can be refused.
            let _ = self.store.wl().compact(self.compacted);
        }
    }

    fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader && self.is_elected
    }

    fn propose(&mut self, tag: u64, payload: Bytes) {
        // A proposal that is dropped is never answered, and the run says so.
        let _ = self.node.propose(tag.to_le_bytes().to_vec(), payload.to_vec());
    }

    fn receive(&mut self, message: Message) {
        // What does not apply is ignored, as the crate's own example does.
        let _ = self.node.step(message);
    }

    fn before_sync(&mut self, out: &mut Vec<(usize, Message)>) {
        if self.node.has_ready() {
            let mut ready = self.node.ready();
            out.extend(ready.take_messages().into_iter().map(addressed));
            self.ready = Some(ready);
        }
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        let Some(ready) = &mut self.ready else { return Ok(()) };
        if ready.must_sync() {
            self.disk.sync(ready)?;
        }
        let mut store = self.store.wl();
        store.append(ready.entries())?;
        if let Some(state) = ready.hs() {
            store.set_hardstate(state.clone());
        }
        Ok(())
    }

    fn after_sync(&mut self, out: &mut Vec<(usize, Message)>, done: &mut Vec<u64>) -> bool {
        let Some(mut ready) = self.ready.take() else { return false };
        out.extend(ready.take_persisted_messages().into_iter().map(addressed));
        let committed = ready.take_committed_entries();
        self.take(committed, done);
        let mut light = self.node.advance(ready);
        out.extend(light.take_messages().into_iter().map(addressed));
        let committed = light.take_committed_entries();
        self.take(committed, done);
        self.node.advance_apply();
        self.node.has_ready()
    }

    fn encode(message: &Message, into: &mut Vec<u8>) {
        message.write_to_vec(into).expect("a message is initialised");
    }

    fn decode(bytes: &[u8]) -> anyhow::Result<Message> {
        Ok(Message::parse_from_bytes(bytes)?)
    }
}

fn addressed(message: Message) -> (usize, Message) {
    (message.to as usize - 1, message)
}
