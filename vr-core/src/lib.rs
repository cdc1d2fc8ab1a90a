//! An embeddable Viewstamped Replication engine: implement one trait, get a replicated service.

pub mod client;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod execution;
pub mod model;
pub mod node;
pub mod ports;
pub mod replica;
pub mod state;

pub use crate::{
    client::{
        Client, ClientBuilder, ConnectError, Raw,
        outcome::{ClientOutcome, NotResumed, RequestError},
        ticket::{Ticket, TicketError},
    },
    model::{
        config::{Config, ConfigError, Genesis},
        durable::Durability,
        footprint::{Footprint, Share, Usage},
        membership::{Member, Members, Membership, MembershipError},
        read::{CausalToken, Read},
        types::{ClientId, OpNumber, ReplicaId, View, Viewstamp},
    },
    node::{
        Node, NodeBuilder,
        events::Events,
        executor_front::StateDigest,
        export::{CheckpointCopy, Export, ExportError, ExportScope},
        finding::{Cause, Explanation, Finding},
        handle::{DigestError, NodeHandle},
        handoffs::HandedOff,
        memory_checkpoints::MemoryCheckpoints,
        status::{
            ExecutorMode, ExecutorStatus, FetchingStatus, NodeStatus, StorageStatus,
            TransportStatus,
        },
        stop::NodeError,
    },
    ports::{
        runtime::Runtime,
        state_machine::{
            Context, Malformed, OnDisk, QueryContext, RawStateMachine, SnapshotError,
            SnapshotReader, SnapshotSource, SnapshotWriter, StateMachine, Typed,
        },
        storage::{
            Checkpoints, LogReader, LogWriter, Opened, Recovered, Storage, StorageError, WriteBatch,
        },
        transport::{Backpressure, Closed, Endpoint, Received, Role, Transport, TransportError},
    },
    replica::io::{Event, HandoffError, ReplicaStatus},
};
