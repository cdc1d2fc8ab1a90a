//! Floor 1: the nouns of the protocol, plain values without behaviour of their own.

pub mod certificate;
pub mod config;
pub mod durable;
pub mod encoding;
pub mod entry;
pub mod kind;
pub mod membership;
pub mod message;
pub mod time;
pub mod types;
