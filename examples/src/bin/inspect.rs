//! You will see what a data directory holds, superblock, segments, records and damage: `inspect
//! DIR`. Nothing in it is changed. Exit status 0: sound, 1: damaged, 2: cannot be read.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use vr_examples::describe;

/// Shows what a data directory holds, without changing it.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 everything verifies, 1 something is damaged, 2 it cannot be read."
)]
struct Arguments {
    /// A data directory, as given to kv serve --data
    dir: PathBuf,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is what it is for")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match vr_storage::inspect(&arguments.dir) {
        Ok(report) => {
            print!("{report}");
            ExitCode::from(u8::from(report.has_damage()))
        }
        Err(error) => {
            eprintln!("inspect: {}", describe(&error));
            ExitCode::from(2)
        }
    }
}
