//! `sam-mix` with the example's classifier in its registry.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::cli::main(&example_classifier::registry())
}
