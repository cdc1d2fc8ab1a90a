//! A replicated key-value service that Redis clients can talk to.
//!
//! `state` is the replicated part, `command` what it is asked, `parse` and `resp` turn a client's
//! bytes into that, `session` and `server` serve connections, `serve` is one replica's process,
//! `client` and `demo` drive several of them, `rescue` is for operators.

pub mod client;
pub mod command;
pub mod demo;
pub mod glob;
pub mod parse;
pub mod replica;
pub mod rescue;
pub mod resp;
pub mod serve;
pub mod server;
pub mod session;
pub mod state;
