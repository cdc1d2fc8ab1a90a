//! You will see how many operations a second a group executes and how long each takes: `load tcp`;
//! also how long a failure of the primary, a restart and a hand-off are felt.

use clap::Parser;
use vr_benches::load::command::{Arguments, run};

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(arguments))
}
