//! Suites that any `StateMachine`, `Storage` and `Transport` must pass; feature `conformance`.
//!
//! Each suite is a list of named cases, run against an implementation that the caller brings, and
//! returns a [`Report`](report::Report). A case whose preconditions the caller cannot bring about,
//! such as a loss of power, is reported as not covered; it never passes silently. The suites need
//! no async runtime of their own and touch nothing but what they are given.
//!
//! - [`state_machine::check`]: is the service deterministic, and is its snapshot complete?
//! - [`state_machine::check_on_disk`]: is a state on disk there again with what belongs to it?
//! - [`storage::run`]: is what was acknowledged there after a crash, and is damage noticed?
//! - [`transport::run`]: does what was sent arrive as it was, and does no lane wait for a later one?
//!
//! They belong into the tests of the implementation:
//!
//! ```toml
//! [dev-dependencies]
//! vr-core = { version = "0.1", features = ["conformance"] }
//! ```

pub mod report;
pub mod state_machine;
pub mod storage;
pub mod transport;
