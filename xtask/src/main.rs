//! `cargo xtask VERB`: sets SAM-Mix up, builds the program that a verb needs, and starts it with the same arguments.
//! Builds in seconds: it links neither libtorch nor polars, and never waits for their builds.

mod bench;
mod binary;
mod chain;
mod cuda;
mod cuda_build;
mod doctor;
mod fuzz;
mod libtorch;
mod parity;
mod pass;
mod prepare;
mod python;
mod setup;
mod test;
mod train;
mod weights;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

use binary::Forwarded;
use workspace::Workspace;

const ABOUT: &str = "Liver segmentation on CT from a handful of labelled slices: set up, train, evaluate, predict";

const START: &str = "\
Start here:
  cargo xtask train      the whole way on synthetic data: set-up, data, training, evaluation, report
  cargo xtask doctor     what this machine has and what is missing

A verb that starts a program passes its arguments through: `cargo xtask train --help` shows them all.";

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = ABOUT, after_help = START)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    #[command(about = setup::ABOUT, after_help = setup::EXAMPLES)]
    Setup(setup::Args),
    #[command(about = doctor::ABOUT, after_help = doctor::EXAMPLES)]
    Doctor(doctor::Args),
    #[command(about = prepare::ABOUT, after_help = prepare::EXAMPLES, disable_help_flag = true)]
    Prepare(Forwarded),
    #[command(about = pass::INSPECT.about, after_help = pass::INSPECT.examples, disable_help_flag = true)]
    Inspect(Forwarded),
    #[command(about = train::ABOUT, after_help = train::EXAMPLES, disable_help_flag = true)]
    Train(Forwarded),
    #[command(about = pass::EVALUATE.about, after_help = pass::EVALUATE.examples, disable_help_flag = true)]
    Evaluate(Forwarded),
    #[command(about = pass::CHOOSE.about, after_help = pass::CHOOSE.examples, disable_help_flag = true)]
    Choose(Forwarded),
    #[command(about = pass::IMPORT_LABELS.about, after_help = pass::IMPORT_LABELS.examples, disable_help_flag = true)]
    ImportLabels(Forwarded),
    #[command(about = pass::PREDICT.about, after_help = pass::PREDICT.examples, disable_help_flag = true)]
    Predict(Forwarded),
    #[command(about = pass::EXPORT.about, after_help = pass::EXPORT.examples, disable_help_flag = true)]
    Export(Forwarded),
    #[command(about = pass::REPORT_OF_RUN.about, after_help = pass::REPORT_OF_RUN.examples, disable_help_flag = true)]
    Report(Forwarded),
    #[command(about = pass::RUNS.about, after_help = pass::RUNS.examples, disable_help_flag = true)]
    Runs(Forwarded),
    #[command(about = pass::STUDY_OF_MODELS.about, after_help = pass::STUDY_OF_MODELS.examples, disable_help_flag = true)]
    Study(Forwarded),
    #[command(about = test::ABOUT, after_help = test::EXAMPLES, disable_help_flag = true)]
    Test(Forwarded),
    #[command(about = bench::ABOUT, after_help = bench::EXAMPLES)]
    Bench(bench::Args),
    #[command(about = parity::ABOUT, after_help = parity::EXAMPLES)]
    Parity(parity::Args),
    #[command(about = fuzz::ABOUT, after_help = fuzz::EXAMPLES)]
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    let outcome = Workspace::locate().and_then(|workspace| match verb {
        Verb::Setup(args) => setup::run(&workspace, &args),
        Verb::Doctor(args) => Ok(doctor::run(&workspace, &args)),
        Verb::Prepare(forwarded) => prepare::run(&workspace, &forwarded),
        Verb::Inspect(forwarded) => pass::INSPECT.run(&workspace, &forwarded),
        Verb::Train(forwarded) => train::run(&workspace, &forwarded),
        Verb::Evaluate(forwarded) => pass::EVALUATE.run(&workspace, &forwarded),
        Verb::Choose(forwarded) => pass::CHOOSE.run(&workspace, &forwarded),
        Verb::ImportLabels(forwarded) => pass::IMPORT_LABELS.run(&workspace, &forwarded),
        Verb::Predict(forwarded) => pass::PREDICT.run(&workspace, &forwarded),
        Verb::Export(forwarded) => pass::EXPORT.run(&workspace, &forwarded),
        Verb::Report(forwarded) => pass::REPORT_OF_RUN.run(&workspace, &forwarded),
        Verb::Runs(forwarded) => pass::RUNS.run(&workspace, &forwarded),
        Verb::Study(forwarded) => pass::STUDY_OF_MODELS.run(&workspace, &forwarded),
        Verb::Test(forwarded) => test::run(&workspace, &forwarded),
        Verb::Bench(args) => bench::run(&workspace, &args),
        Verb::Parity(args) => parity::run(&workspace, &args),
        Verb::Fuzz(args) => fuzz::run(&workspace, &args),
    });
    outcome.unwrap_or_else(|error| {
        if chain::interrupted() {
            eprintln!("{error:#}");
            // Ended by Ctrl-C, as shells have it.
            return ExitCode::from(130);
        }
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The short help of a verb that starts a program; the program's own options follow it.
fn print_help(verb: &str) -> anyhow::Result<()> {
    let mut command = <Cli as clap::CommandFactory>::command();
    command.build();
    if let Some(verb) = command.find_subcommand_mut(verb) {
        verb.print_help()?;
    }
    println!();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;
    use std::ffi::OsString;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["cargo xtask"].iter().chain(arguments))
    }

    fn forwarded(arguments: &[&str]) -> Vec<OsString> {
        match parse(arguments).unwrap_or_else(|error| panic!("{error}")).verb {
            Verb::Train(forwarded) => forwarded.arguments,
            _ => panic!("not the train verb"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_of_a_program_pass_through_unchanged() {
        assert_eq!(
            forwarded(&["train", "--config", "a b.toml", "--resume", "-x", "--", "--odd"]),
            ["--config", "a b.toml", "--resume", "-x", "--", "--odd"]
        );
        assert_eq!(forwarded(&["train", "--help"]), ["--help"]);
        assert!(forwarded(&["train"]).is_empty());
    }

    #[test]
    fn an_unknown_verb_and_an_unknown_option_are_refused() {
        assert_eq!(parse(&["trian"]).err().map(|e| e.kind()), Some(ErrorKind::InvalidSubcommand));
        assert_eq!(parse(&["setup", "--wieghts", "f"]).err().map(|e| e.kind()), Some(ErrorKind::UnknownArgument));
        assert_eq!(parse(&["bench", "nothing"]).err().map(|e| e.kind()), Some(ErrorKind::InvalidValue));
    }

    #[test]
    fn help_texts_are_as_reviewed() {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut text = command.render_help().to_string();
        for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
            text.extend(["\n=== ", verb.get_name(), "\n"]);
            text.push_str(&verb.clone().term_width(100).render_help().to_string());
        }
        insta::assert_snapshot!(text);
    }
}
