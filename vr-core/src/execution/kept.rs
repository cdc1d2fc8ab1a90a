//! What became of a request as it is kept: a short reply without memory of its own.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::message::Outcome;

/// Bytes of a reply that needs no memory of its own; so many fit without making the others larger.
const SHORT_MAX: usize = 23;

/// An outcome that is kept for as long as its client may ask again; written as an [`Outcome`].
///
/// Giving back the memory of a reply that was kept for thousands of operations costs more than
/// copying a few bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Outcome", into = "Outcome")]
pub enum Kept {
    /// A reply of `length` bytes; what is behind them is zero.
    Short {
        /// How many of the bytes count.
        length: u8,
        /// The reply.
        bytes: [u8; SHORT_MAX],
    },
    /// A longer one, or none.
    Other(Outcome),
}

impl Kept {
    /// What is kept of `outcome`, which goes its way.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        Self::short(outcome).unwrap_or_else(|| Self::Other(outcome.clone()))
    }

    fn short(outcome: &Outcome) -> Option<Self> {
        let Outcome::Executed(reply) = outcome else { return None };
        let mut bytes = [0; SHORT_MAX];
        bytes.get_mut(..reply.len())?.copy_from_slice(reply);
        Some(Self::Short { length: u8::try_from(reply.len()).ok()?, bytes })
    }

    /// The outcome again.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Short { length, bytes } => {
                let reply = bytes.get(..usize::from(*length)).unwrap_or_default();
                Outcome::Executed(Bytes::copy_from_slice(reply))
            }
            Self::Other(outcome) => outcome.clone(),
        }
    }
}

impl From<Outcome> for Kept {
    fn from(outcome: Outcome) -> Self {
        Self::short(&outcome).unwrap_or(Self::Other(outcome))
    }
}

impl From<Kept> for Outcome {
    fn from(kept: Kept) -> Self {
        kept.outcome()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes() -> Vec<Outcome> {
        let lengths = [0, 1, SHORT_MAX - 1, SHORT_MAX, SHORT_MAX + 1, 255, 256, 257, 1 << 16];
        let replies = lengths.map(|length| Outcome::Executed(vec![7; length].into()));
        let others =
            [Outcome::Malformed, Outcome::Registered, Outcome::Evicted, Outcome::Forgotten];
        replies.into_iter().chain(others).collect()
    }

    #[test]
    fn what_is_kept_is_what_it_was() {
        for outcome in outcomes() {
            assert_eq!(Kept::of(&outcome).outcome(), outcome);
            assert_eq!(Outcome::from(Kept::from(outcome.clone())), outcome);
        }
    }

    #[test]
    fn short_replies_have_no_memory_of_their_own() {
        let of = |length| Kept::from(Outcome::Executed(vec![7; length].into()));
        assert!(matches!(of(SHORT_MAX), Kept::Short { .. }));
        assert!(matches!(of(SHORT_MAX + 1), Kept::Other(_)));
        assert_eq!(size_of::<Kept>(), size_of::<Outcome>(), "the short ones need no room");
    }

    #[test]
    fn it_is_written_as_an_outcome() {
        for outcome in outcomes() {
            let written = postcard::to_allocvec(&outcome).unwrap();
            let kept = Kept::from(outcome);
            assert_eq!(postcard::to_allocvec(&kept).unwrap(), written);
            assert_eq!(postcard::from_bytes::<Kept>(&written), Ok(kept));
        }
    }
}
