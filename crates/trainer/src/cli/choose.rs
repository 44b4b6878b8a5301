//! `sam-mix choose`: which slices to draw, as a list for an annotator.

use super::program;
use crate::config::Config;
use annotation::{check_worklist_place, worklist_lines, write_worklist};
use anyhow::Result;
use clap::{Args, ValueEnum};
use slice_sampling::{Purpose, WorklistOrder, worklist};
use slice_store::{SliceStore, counted};
use std::path::PathBuf;
use whole_file::Existing;

#[derive(Args)]
pub(super) struct ChooseArgs {
    /// Store whose slices are to be drawn; its masks count, and are not looked at
    #[arg(long)]
    store: PathBuf,
    /// Configuration that training will use: its patient split, seed and numbers of slices
    #[arg(long)]
    config: PathBuf,
    /// Slices of training patients with a mask, those that are drawn already among them [default: sampling.labelled]
    #[arg(long, value_name = "N")]
    budget: Option<usize>,
    /// Slices of validation patients with a mask, likewise [default: sampling.validation_slices]
    #[arg(long, value_name = "N")]
    validation: Option<usize>,
    /// How they are chosen
    #[arg(long, value_enum, default_value_t = Strategy::Uniform)]
    strategy: Strategy,
    /// Folder for the list, a sheet of pictures and a page on how to draw and hand back
    #[arg(long)]
    output: PathBuf,
    /// Replace that folder
    #[arg(long)]
    overwrite: bool,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    /// Change a key of the configuration: seed=1, sampling.split=…
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Strategy {
    /// Drawn from all slices of the training patients alike
    Uniform,
    /// Patients in turn, each one's slices far from each other
    Stratified,
}

pub(super) fn choose(arguments: &ChooseArgs) -> Result<bool> {
    let mut sampling = Config::load(&arguments.config, &arguments.set)?;
    let seed = sampling.seed;
    let sampling = &mut sampling.sampling;
    sampling.labelled = arguments.budget.unwrap_or(sampling.labelled);
    sampling.validation_slices = arguments.validation.unwrap_or(sampling.validation_slices);
    let store = SliceStore::open(&arguments.store)?;
    let output = &arguments.output;
    check_worklist_place(output, Existing::by_switch(arguments.overwrite))?;
    let order = match arguments.strategy {
        Strategy::Uniform => WorklistOrder::Uniform,
        Strategy::Stratified => WorklistOrder::Stratified,
    };
    let list = worklist(store.records(), sampling, order, seed)?;
    let lines = worklist_lines(&store, &list)?;
    if lines.is_empty() {
        println!("nothing to draw: {} and {} slices have a mask that shows the target", list.drawn[0], list.drawn[1]);
        return Ok(true);
    }
    write_worklist(output, &store, &lines)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&lines)?);
        return Ok(true);
    }
    let count = |purpose| lines.iter().filter(|line| line.purpose == purpose).count();
    let target = &store.info().target;
    println!(
        "{} to draw: {} to train on and {} for validation, beside {} and {} that have a mask already",
        counted(lines.len(), "slice"),
        count(Purpose::Train),
        count(Purpose::Validation),
        list.drawn[0],
        list.drawn[1]
    );
    if list.unknown > 0 {
        println!(
            "of {} nobody has said whether they show the {target}: a presence list (`prepare --presence`) spares drawing empty ones",
            counted(list.unknown, "candidate")
        );
    }
    println!(
        "'{}': worklist.csv, sheet.png, how-to-draw.md. When they are drawn:\n  {} import-labels --store {} --from FOLDER --worklist {}",
        output.display(),
        program(),
        arguments.store.display(),
        output.join("worklist.csv").display()
    );
    Ok(true)
}
