//! How fresh the answer to a query must be, and how far somebody has seen the log.

use serde::{Deserialize, Serialize};

use crate::model::types::{Epoch, OpNumber};

/// An op that has been seen: of a call's reply, or of the state that answered a query.
///
/// A query with [`Read::Causal`] sees at least as much. Tokens
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

/// How fresh the answer to a query must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Read {
    /// As if it had its place in the log; costs a round to a quorum, shared by all waiting reads.
    #[default]
    Linearizable,
    /// What this replica has executed, however old; costs no message.
    Local,
    /// At least what this token's holder has seen; costs no message, but may wait at a replica that
    /// lags. With the token of a client itself: it reads what it wrote, and never goes back.
    Causal(CausalToken),
    /// As [`Linearizable`](Self::Linearizable), and without a message where the primary holds a
    /// lease ([`Config::lease`](crate::model::config::Config::lease)): then it is as fresh only as
    /// long as clocks keep to `clock_drift_ppm_max`. Elsewhere, and without a lease, the round is
    /// made.
    Lease,
}
