//! The entry point of `carillon`: parses the arguments, runs the command, and maps the result to an exit code.

use std::process::ExitCode;

use carillon::args::Args;
use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// jemalloc returns the memory of closed connections to the system. glibc would keep it in the process.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    match carillon::run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            carillon::output::print_error(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}
