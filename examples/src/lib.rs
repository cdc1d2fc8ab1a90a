//! Example services on `vr-core`: a Redis-speaking key-value store and what its demo needs, and a
//! store whose state is on disk.

use std::error::Error;

#[cfg(doctest)]
mod docs;
pub mod kv;
pub mod redb_kv;

/// An error with all its causes, in one line.
#[must_use]
pub fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors repeat their source in their own words.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
