//! The `memebg` program. Everything it does is in the library.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    memebg::cli::run(memebg::cli::Cli::parse())
}
