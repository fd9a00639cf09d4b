//! The `memebg` program. Everything it does is in the library.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Before anything else: it may start the program again.
    if let Err(error) = memebg::model::opt_out_of_usage_reports() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    memebg::cli::run(memebg::cli::Cli::parse())
}
