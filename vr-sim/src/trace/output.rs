//! Writes a trace to a file: a page when the name ends in `.html`, text otherwise.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    executor::lock,
    trace::{Trace, picture::page_of, text::text_of},
    witness::SharedWitness,
};

/// Writes what is kept of `trace`.
///
/// # Errors
/// What the file system says.
pub fn write_trace(trace: &Trace, path: &Path) -> io::Result<()> {
    let is_page = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("html"));
    fs::write(path, if is_page { page_of(trace) } else { text_of(trace) })
}

/// Writes a trace when it is dropped, so that a run that panics leaves one, too.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    witness: SharedWitness,
}

impl TraceFile {
    /// Will write what `witness` saw to `path`.
    #[must_use]
    pub const fn new(path: PathBuf, witness: SharedWitness) -> Self {
        Self { path, witness }
    }
}

impl Drop for TraceFile {
    #[expect(clippy::print_stderr, reason = "a lost trace is said, and nobody waits for a result")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.witness).trace.panicked();
        }
        if let Err(error) = write_trace(&lock(&self.witness).trace, &self.path) {
            eprintln!("the trace could not be written to {}: {error}", self.path.display());
        }
    }
}
