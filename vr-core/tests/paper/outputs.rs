//! What left the replica under test, and what to look for in it.

use vr_core::{
    execution::{transfer::Task, work::Work},
    model::{
        entry::Entry,
        kind::Kind,
        message::{Envelope, Message},
        types::{OpNumber, Peer, ReplicaId, RequestId, View},
    },
    ports::storage::WriteBatch,
    replica::io::{Event, Fatal, Output},
};

use crate::subject::CONNECTION;

/// What the messages to replicas that match a pattern carry.
macro_rules! picked {
    ($outputs:expr, $pattern:pat => $value:expr) => {
        $outputs.each(|message| if let $pattern = message { Some($value) } else { None })
    };
}
pub(crate) use picked;

/// What left the replica because of one input, in order.
#[derive(Debug, Default)]
pub(crate) struct Outputs(pub(crate) Vec<Output>);

impl Outputs {
    /// What was sent to replicas, in order.
    pub(crate) fn sent(&self) -> Vec<(ReplicaId, Message)> {
        let mut sent = Vec::new();
        for output in &self.0 {
            if let Output::Send { to: Peer::Replica(id), envelope, .. } = output {
                sent.push((*id, envelope.message.clone()));
            }
        }
        sent
    }

    /// What `pick` finds in the messages that were sent to replicas.
    pub(crate) fn each<T>(&self, pick: impl Fn(&Message) -> Option<T>) -> Vec<T> {
        self.sent().iter().filter_map(|(_, message)| pick(message)).collect()
    }

    /// To whom messages of `kind` were sent.
    pub(crate) fn receivers(&self, kind: Kind) -> Vec<u64> {
        let sent = self.sent();
        sent.into_iter().filter(|(_, m)| m.kind() == kind).map(|(to, _)| to.0).collect()
    }

    /// What the client was told.
    pub(crate) fn told(&self) -> Vec<Message> {
        self.told_to(CONNECTION)
    }

    /// What was sent to `peer`.
    pub(crate) fn told_to(&self, peer: Peer) -> Vec<Message> {
        let mut told = Vec::new();
        for output in &self.0 {
            if let Output::Send { to, envelope, .. } = output
                && *to == peer
            {
                told.push(envelope.message.clone());
            }
        }
        told
    }

    /// The durable views that the envelopes named.
    pub(crate) fn envelope_views(&self) -> Vec<View> {
        self.envelopes().into_iter().map(|envelope| envelope.view).collect()
    }

    /// What was sent to anybody, as it travels.
    pub(crate) fn envelopes(&self) -> Vec<&Envelope> {
        let mut envelopes = Vec::new();
        for output in &self.0 {
            if let Output::Send { envelope, .. } = output {
                envelopes.push(envelope.as_ref());
            }
        }
        envelopes
    }

    /// What was given to storage.
    pub(crate) fn batches(&self) -> Vec<&WriteBatch> {
        let mut batches = Vec::new();
        for output in &self.0 {
            if let Output::Persist { batch, .. } = output {
                batches.push(batch.as_ref());
            }
        }
        batches
    }

    /// What was given to the executor.
    pub(crate) fn work(&self) -> Vec<&Work> {
        let mut found = Vec::new();
        for output in &self.0 {
            if let Output::Execute(work) = output {
                found.push(work);
            }
        }
        found
    }

    /// What is to be done with checkpoints, in order.
    pub(crate) fn tasks(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for output in &self.0 {
            if let Output::Transfer(task) = output {
                tasks.push(task.as_ref().clone());
            }
        }
        tasks
    }

    /// The first and the last op of everything that is to be read back.
    pub(crate) fn fetches(&self) -> Vec<(u64, u64)> {
        let mut fetches = Vec::new();
        for output in &self.0 {
            if let Output::Fetch { from, through, .. } = output {
                fetches.push((from.0, through.0));
            }
        }
        fetches
    }

    /// The ops that were given to the executor, in order.
    pub(crate) fn ordered(&self) -> Vec<u64> {
        let mut ordered = Vec::new();
        for work in self.work() {
            if let Work::Entries { entries, .. } = work {
                ordered.extend(entries.iter().map(|entry| entry.header.op_number.0));
            }
        }
        ordered
    }

    /// The ops after which the executor is to take a checkpoint.
    pub(crate) fn checkpoints(&self) -> Vec<OpNumber> {
        let mut ops = Vec::new();
        for work in self.work() {
            if let Work::Checkpoint { at } = work {
                ops.push(at.op_number);
            }
        }
        ops
    }

    /// What whoever listens was told.
    pub(crate) fn events(&self) -> Vec<&Event> {
        let mut events = Vec::new();
        for output in &self.0 {
            if let Output::Event(event) = output {
                events.push(event);
            }
        }
        events
    }

    /// The names of the questions to local storage, and where they begin.
    pub(crate) fn read_back(&self) -> Vec<(RequestId, OpNumber)> {
        let mut asked = Vec::new();
        for output in &self.0 {
            if let Output::Fetch { request, from, .. } = output {
                asked.push((*request, *from));
            }
        }
        asked
    }

    /// Why the node has to stop.
    pub(crate) fn fatal(&self) -> Option<&Fatal> {
        let mut reasons = self.0.iter();
        reasons.find_map(|output| if let Output::Fatal(why) = output { Some(why) } else { None })
    }

    /// The acknowledgements that were sent.
    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        picked!(self, Message::PrepareOk(m) => m.op_number.0)
    }

    /// All entries in prepares and in answers to questions.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (_, message) in self.sent() {
            if let Message::Prepare(m) = message {
                entries.extend_from_slice(&m.entries);
            } else if let Message::Entries(m) = message {
                entries.extend(m.entries);
            }
        }
        entries
    }
}
