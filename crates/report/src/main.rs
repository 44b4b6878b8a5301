//! `sam-mix-report`: a run directory as one HTML page.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use whole_file::Existing;

/// Write a run's report: one self-contained HTML page
#[derive(Parser)]
#[command(
    name = "sam-mix-report",
    version,
    after_help = "\
Examples:
  sam-mix-report runs/quickstart
  sam-mix-report runs/quickstart --output quickstart.html"
)]
struct Arguments {
    /// Run directory, as `cargo xtask train` writes it
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The page [default: report.html in the run directory]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the page of --output if it is there
    #[arg(long, requires = "output")]
    overwrite: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(output) = &arguments.output
        && let Err(error) = whole_file::check_place(output, &[], Existing::by_switch(arguments.overwrite))
    {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let output = arguments.output.unwrap_or_else(|| arguments.run.join("report.html"));
    match report::write(&arguments.run, &output) {
        Ok(()) => {
            println!("report: {}", output.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
