//! The `carillon` command: parses, runs, and maps the outcome to an exit code.

use std::process::ExitCode;

use carillon::args::Args;
use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// Memory of clients that are gone goes back to the system; what glibc frees stays with the process.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    match carillon::run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            carillon::output::complain(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}
