//! You will see three replicas start, a load with a progress line, the primary killed and all of
//! them killed, and a table that ends with "acknowledged writes lost 0": `kv demo`.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use vr_examples::{
    describe,
    kv::{demo, rescue, serve},
};

/// A replicated key-value store that Redis clients can talk to.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status of serve: 0 stopped cleanly, 2 wrong arguments, 3 an address cannot \
                  be used, 4 the data directory cannot be used, 5 stopped by a failure.\n\
                  Exit status of demo: 0 nothing was lost, doubled or different, 1 something was.\n\
                  Exit status of export, restore and unsafe-restart: 0 done, 1 refused."
)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs one replica; any of them serves reads and writes
    Serve(serve::Options),
    /// Has a running replica write its log to a file
    Export(rescue::ExportOptions),
    /// Begins a group of its own with an exported log
    Restore(rescue::RestoreOptions),
    /// Last resort: begins the next epoch of a group that lost too much; loses data
    UnsafeRestart(rescue::UnsafeRestartOptions),
    /// Starts replicas, loads them, kills them, and shows that nothing is lost
    Demo(demo::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let quiet = !matches!(arguments.what, What::Serve(_));
    let default = if quiet { "warn" } else { "info" };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into()))
        .init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), 5),
    };
    let code = runtime.block_on(async {
        match arguments.what {
            What::Serve(options) => serve(options).await,
            What::Demo(options) => demonstrate(&options).await,
            What::Export(options) => say(rescue::export(&options).await),
            What::Restore(options) => say(rescue::begin_copy(&options)),
            What::UnsafeRestart(options) => say(rescue::force(&options)),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn serve(options: serve::Options) -> ExitCode {
    match serve::run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&describe(&error), error.exit_code()),
    }
}

async fn demonstrate(options: &demo::Options) -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return fail(&format!("cannot find this program: {error}"), 1),
    };
    let ended = tokio::select! {
        ended = demo::run(program, options) => ended,
        _ = tokio::signal::ctrl_c() => return fail("interrupted; all replicas were ended", 130),
    };
    match ended {
        Ok(report) => {
            show(&report);
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

#[expect(clippy::print_stdout, reason = "what was done is what the command is for")]
fn say(done: anyhow::Result<String>) -> ExitCode {
    match done {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

#[expect(clippy::print_stdout, reason = "the table is what the demo is for")]
fn show(report: &demo::report::Report) {
    println!("{report}");
}

#[expect(clippy::print_stderr, reason = "the last words of a program")]
fn fail(what: &str, code: u8) -> ExitCode {
    eprintln!("kv: {what}");
    ExitCode::from(code)
}
