//! What replicas say to each other before there is a group: who are you, and shall we found one?

use serde::{Deserialize, Serialize};

use crate::model::{
    certificate::Certificate,
    durable::Durability,
    types::{DiskId, Nonce, ReplicaId},
};

/// Asks everyone for disk and certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// To be repeated in the answer.
    pub nonce: Nonce,
    /// The mode that the sender runs in.
    pub durability: Durability,
}

/// Tells disk and certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloOk {
    /// The question's nonce; `None` when nobody asked (then nobody adopts what it says).
    pub nonce: Option<Nonce>,
    /// The sender's disk.
    pub disk: DiskId,
    /// The sender's certificate.
    pub certificate: Option<Certificate>,
    /// The mode that the sender runs in.
    pub durability: Durability,
}

/// Second round of founding a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// To be repeated in the answer.
    pub nonce: Nonce,
    /// All members and the disks they named in the first round.
    pub disks: Vec<(ReplicaId, DiskId)>,
}

/// Agrees to the founding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundOk {
    /// The question's nonce.
    pub nonce: Nonce,
}
