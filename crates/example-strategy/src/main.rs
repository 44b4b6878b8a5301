//! `sam-mix` with the example's strategy in its registry.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::cli::main(&example_strategy::registry())
}
