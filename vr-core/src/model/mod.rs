//! Floor 1: the nouns of the protocol, plain values without behaviour of their own.

pub mod batch;
pub mod by_client;
pub mod certificate;
pub mod checkpoint;
pub mod companion;
pub mod config;
pub mod durable;
pub mod encoding;
pub mod entries;
pub mod entry;
pub mod export;
pub mod footprint;
pub mod founding;
pub mod kind;
pub mod many;
pub mod membership;
pub mod message;
#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
#[expect(unreachable_pub, reason = "public with the feature only")]
pub(crate) mod mutants;
pub mod operation;
pub mod payload;
pub mod read;
pub mod snapshot;
pub mod time;
pub mod types;
