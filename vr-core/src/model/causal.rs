//! How far somebody has seen the log, so that nobody after them sees less.

use serde::{Deserialize, Serialize};

use crate::model::types::{Epoch, OpNumber};

/// An op that has been seen: of a call's reply, or of the state that answered a query.
///
/// A query with [`Read::Causal`](crate::model::message::Read::Causal) sees at least as much. Tokens
/// of several clients of one group are merged by `max`; the default is less than any other and asks
/// for nothing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct CausalToken {
    /// The membership period that the op was seen in.
    pub epoch: Epoch,
    /// The op.
    pub op_number: OpNumber,
}
