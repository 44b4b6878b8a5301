//! `sam-mix` with the example's segmenter in its registry.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::cli::main(&example_segmenter::registry())
}
