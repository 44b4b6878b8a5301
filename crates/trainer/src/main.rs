//! `sam-mix`: train, evaluate, predict.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::cli::main(&trainer::registry::Registry::default())
}
