//! omnipaxos 0.2.4: messages of an accepting leader before its own sync, one sync per turn.

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
use omnipaxos::{
    ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig,
    ballot_leader_election::Ballot,
    messages::Message,
    storage::{Entry, NoSnapshot, StopSign, Storage, StorageOp, StorageResult},
    util::LogEntry,
};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, LOG_KEPT, LOG_OPS, REPLICAS, Wal};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Operation {
    tag: u64,
    payload: Bytes,
}

impl Entry for Operation {
    type Snapshot = NoSnapshot;
}

pub struct Omni {
    paxos: OmniPaxos<Operation, Memory>,
    wal: Rc<RefCell<Option<Wal>>>,
    decided: usize,
    keeps_up: bool,
    sent: Vec<Message<Operation>>,
}

impl Omni {
    /// Takes what may leave; a message is kept in its order.
    fn send(&mut self, out: &mut Vec<(usize, Message<Operation>)>) {
        self.paxos.take_outgoing_messages(&mut self.sent);
        let sent = self.sent.drain(..);
        out.extend(sent.map(|message| (message.get_receiver() as usize - 1, message)));
    }
}

impl Engine for Omni {
    type Message = Message<Operation>;

    const NAME: &'static str = "omnipaxos 0.2.4";

    fn new(me: usize, wal: Option<Wal>) -> anyhow::Result<Self> {
        let server = ServerConfig {
            pid: me as u64 + 1,
            election_tick_timeout: 10,
            resend_message_tick_timeout: 100,
            buffer_size: 1 << 20,
            // The driver makes the batches: what was appended between two turns leaves together.
            batch_size: 1,
            leader_priority: u32::from(me == 0),
            ..ServerConfig::default()
        };
        let cluster = ClusterConfig {
            configuration_id: 1,
            nodes: (1..=REPLICAS as u64).collect(),
            flexible_quorum: None,
        };
        let wal = Rc::new(RefCell::new(wal));
        let memory = Memory { wal: Rc::clone(&wal), ..Memory::default() };
        let config = OmniPaxosConfig { cluster_config: cluster, server_config: server };
        let paxos = config.build(memory).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(Self { paxos, wal, decided: 0, keeps_up: false, sent: Vec::new() })
    }

    fn keep_up(&mut self) {
        self.keeps_up = true;
    }

    fn tick(&mut self) {
        self.paxos.tick();
        let kept = self.decided - self.paxos.get_compacted_idx();
        if self.leads() && kept as u64 > LOG_OPS + LOG_KEPT {
            // Refused until everybody has accepted as much; the next tick asks again.
            let _ = self.paxos.trim(Some(self.decided - LOG_KEPT as usize));
        }
    }

    fn leads(&self) -> bool {
        let me = self.paxos.get_pid();
        self.paxos.get_current_leader() == Some((me, true))
    }

    fn propose(&mut self, tag: u64, payload: Bytes) {
        // What is refused is never answered, and the run says so.
        let _ = self.paxos.append(Operation { tag, payload });
    }

    fn receive(&mut self, message: Self::Message) {
        self.paxos.handle_incoming(message);
    }

    fn before_sync(&mut self, out: &mut Vec<(usize, Self::Message)>) {
        // Whatever an accepting leader counts of its own is decided only by messages that it
        // handles in later turns, after this turn's sync.
        if self.leads() {
            self.send(out);
        }
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.wal.borrow_mut().as_mut().map_or(Ok(()), Wal::sync)
    }

    fn after_sync(&mut self, out: &mut Vec<(usize, Self::Message)>, done: &mut Vec<u64>) -> bool {
        self.send(out);
        let decided = self.paxos.get_decided_idx();
        if decided > self.decided {
            if self.keeps_up || self.leads() {
                let entries = self.paxos.read_decided_suffix(self.decided).unwrap_or_default();
                done.extend(entries.iter().filter_map(|entry| match entry {
                    LogEntry::Decided(operation) => Some(operation.tag),
                    _ => None,
                }));
            }
            self.decided = decided;
        }
        false
    }

    fn encode(message: &Self::Message, into: &mut Vec<u8>) {
        let filled = std::mem::take(into);
        *into = postcard::to_extend(message, filled).expect("memory takes every message");
    }

    fn decode(bytes: &[u8]) -> anyhow::Result<Self::Message> {
        Ok(postcard::from_bytes(bytes)?)
    }
}

/// The log in memory, and what is to be synced in the file's batch.
#[derive(Default)]
pub struct Memory {
    log: Vec<Operation>,
    promise: Option<Ballot>,
    accepted: Option<Ballot>,
    decided: usize,
    compacted: usize,
    stop_sign: Option<StopSign>,
    wal: Rc<RefCell<Option<Wal>>>,
}

impl Memory {
    fn record(&self, operation: &Operation) {
        if let Some(wal) = &mut *self.wal.borrow_mut() {
            wal.push(&[&operation.tag.to_le_bytes(), &operation.payload]);
        }
    }

    fn record_ballot(&self, ballot: &Ballot) {
        if let Some(wal) = &mut *self.wal.borrow_mut() {
            let bytes = postcard::to_allocvec(ballot).expect("memory takes every ballot");
            wal.push(&[&bytes]);
        }
    }
}

impl Storage<Operation> for Memory {
    fn write_atomically(&mut self, ops: Vec<StorageOp<Operation>>) -> StorageResult<()> {
        for op in ops {
            match op {
                StorageOp::AppendEntry(entry) => self.append_entry(entry)?,
                StorageOp::AppendEntries(entries) => self.append_entries(entries)?,
                StorageOp::AppendOnPrefix(from, entries) => self.append_on_prefix(from, entries)?,
                StorageOp::SetPromise(ballot) => self.set_promise(ballot)?,
                StorageOp::SetDecidedIndex(index) => self.set_decided_idx(index)?,
                StorageOp::SetAcceptedRound(ballot) => self.set_accepted_round(ballot)?,
                StorageOp::SetCompactedIdx(index) => self.set_compacted_idx(index)?,
                StorageOp::Trim(index) => self.trim(index)?,
                StorageOp::SetStopsign(sign) => self.set_stopsign(sign)?,
                StorageOp::SetSnapshot(snapshot) => self.set_snapshot(snapshot)?,
            }
        }
        Ok(())
    }

    fn append_entry(&mut self, entry: Operation) -> StorageResult<()> {
        self.record(&entry);
        self.log.push(entry);
        Ok(())
    }

    fn append_entries(&mut self, entries: Vec<Operation>) -> StorageResult<()> {
        entries.iter().for_each(|entry| self.record(entry));
        self.log.extend(entries);
        Ok(())
    }

    fn append_on_prefix(&mut self, from: usize, entries: Vec<Operation>) -> StorageResult<()> {
        self.log.truncate(from - self.compacted);
        self.append_entries(entries)
    }

    fn set_promise(&mut self, promise: Ballot) -> StorageResult<()> {
        self.record_ballot(&promise);
        self.promise = Some(promise);
        Ok(())
    }

    fn set_decided_idx(&mut self, index: usize) -> StorageResult<()> {
        self.decided = index;
        Ok(())
    }

    fn get_decided_idx(&self) -> StorageResult<usize> {
        Ok(self.decided)
    }

    fn set_accepted_round(&mut self, round: Ballot) -> StorageResult<()> {
        self.record_ballot(&round);
        self.accepted = Some(round);
        Ok(())
    }

    fn get_accepted_round(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.accepted)
    }

    fn get_entries(&self, from: usize, to: usize) -> StorageResult<Vec<Operation>> {
        let wanted = self.log.get(from - self.compacted..to - self.compacted);
        Ok(wanted.map(<[_]>::to_vec).unwrap_or_default())
    }

    fn get_log_len(&self) -> StorageResult<usize> {
        Ok(self.log.len())
    }

    fn get_suffix(&self, from: usize) -> StorageResult<Vec<Operation>> {
        Ok(self.log.get(from - self.compacted..).map(<[_]>::to_vec).unwrap_or_default())
    }

    fn get_promise(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.promise)
    }

    fn set_stopsign(&mut self, sign: Option<StopSign>) -> StorageResult<()> {
        self.stop_sign = sign;
        Ok(())
    }

    fn get_stopsign(&self) -> StorageResult<Option<StopSign>> {
        Ok(self.stop_sign.clone())
    }

    fn trim(&mut self, index: usize) -> StorageResult<()> {
        self.log.drain(..index - self.compacted);
        Ok(())
    }

    fn set_compacted_idx(&mut self, index: usize) -> StorageResult<()> {
        self.compacted = index;
        Ok(())
    }

    fn get_compacted_idx(&self) -> StorageResult<usize> {
        Ok(self.compacted)
    }

    fn set_snapshot(&mut self, _: Option<NoSnapshot>) -> StorageResult<()> {
        Ok(())
    }

    fn get_snapshot(&self) -> StorageResult<Option<NoSnapshot>> {
        Ok(None)
    }
}
