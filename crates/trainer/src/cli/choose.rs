//! `sam-mix choose`: which slices to draw, as a list for an annotator.

use super::choosing::Choosing;
use super::{Compute, crops, open, program};
use crate::config::Config;
use crate::registry::Registry;
use annotation::{Proposals, check_worklist_place, worklist_lines, write_worklist};
use anyhow::Result;
use clap::Args;
use predictor::{OfRun, StoreSights};
use slice_sampling::{Purpose, worklist};
use slice_store::{SliceId, SliceStore, counted};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
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
    /// How they are chosen: uniform, stratified, k-center, uncertainty or disagreement [default: sampling.strategy]
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// Run whose predictions uncertainty and disagreement go by; its masks of the slices are put beside the list, to be corrected
    #[arg(long, value_name = "RUN")]
    run: Option<PathBuf>,
    /// Crops to be answered yes or no, so many, instead of slices to draw: for data in which every slice shows the target
    #[arg(long, value_name = "N", conflicts_with_all = ["budget", "validation", "strategy", "run", "json"])]
    crops: Option<usize>,
    /// Folder for the list, a sheet of pictures, a page on how to draw and hand back, and proposals
    #[arg(long)]
    output: PathBuf,
    /// Replace that folder
    #[arg(long)]
    overwrite: bool,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    /// Folder that keeps what the pretrained encoder makes of the slices, for other choices and trainings
    #[arg(long, value_name = "FOLDER")]
    embeddings: Option<PathBuf>,
    /// Change a key of the configuration: seed=1, sampling.split=…
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    compute: Compute,
}

/// `false` if it was stopped.
pub(super) fn choose(registry: &Registry, arguments: &ChooseArgs, stop: &AtomicBool) -> Result<bool> {
    let mut config = Config::load(&arguments.config, &arguments.set)?;
    let sampling = &mut config.sampling;
    sampling.labelled = arguments.budget.map_or(sampling.labelled, Into::into);
    sampling.validation_slices = arguments.validation.unwrap_or(sampling.validation_slices);
    sampling.strategy = arguments.strategy.clone().unwrap_or_else(|| sampling.strategy.clone());
    let strategy = predictor::known("the strategy", &registry.strategies, &config.sampling.strategy)?.as_ref();
    let store = SliceStore::open(&arguments.store)?;
    let output = &arguments.output;
    check_worklist_place(output, Existing::by_switch(arguments.overwrite))?;
    let (device, _) = open(&arguments.compute)?;
    if let Some(count) = arguments.crops {
        let embeddings = arguments.embeddings.as_deref();
        let choosing = Choosing { registry, config: &config, device, embeddings, stop };
        let count = crops::write(&choosing, &store, count, output)?;
        println!(
            "{} to answer in '{}'. When that is done:\n  {} import-labels --store {} --crops {}",
            counted(count, "crop"),
            output.display(),
            program(),
            arguments.store.display(),
            output.join("crops.csv").display()
        );
        return Ok(true);
    }
    let choosing = Choosing { registry, config: &config, device, embeddings: arguments.embeddings.as_deref(), stop };
    // Its store may have had fewer masks: the checksum is another one. Here the store's own masks count as drawn.
    let of_run = |run: &PathBuf| anyhow::Ok(OfRun { labelled: Vec::new(), ..choosing.earlier(run, &store)? });
    let of_run = arguments.run.as_ref().map(of_run).transpose()?;
    let found = choosing.with(&store, of_run.as_ref(), |sights| {
        let list = worklist(store.records(), &config.sampling, (strategy, sights), config.seed)?;
        let proposals = if of_run.is_some() { proposals(sights, &list.wanted)? } else { Proposals::new() };
        Ok((list, proposals))
    });
    if stop.load(std::sync::atomic::Ordering::Relaxed) {
        eprintln!("stopped; nothing was written");
        return Ok(false);
    }
    let (list, proposals) = found?;
    let lines = worklist_lines(&store, &list)?;
    if lines.is_empty() {
        println!("nothing to draw: {} and {} slices have a mask that shows the target", list.drawn[0], list.drawn[1]);
        return Ok(true);
    }
    write_worklist(output, &store, &lines, &proposals)?;
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
        "'{}': worklist.csv, sheet.png, how-to-draw.md{}. When they are drawn:\n  {} import-labels --store {} --from FOLDER --worklist {}",
        output.display(),
        if proposals.is_empty() { "" } else { ", proposals" },
        program(),
        arguments.store.display(),
        output.join("worklist.csv").display()
    );
    Ok(true)
}

/// The run's masks of the slices, by case.
fn proposals(sights: &StoreSights, wanted: &[slice_sampling::Wanted]) -> Result<Proposals> {
    let is_wanted = |id: &SliceId| wanted.iter().any(|wanted| wanted.slice == *id);
    let records = sights.store.records();
    let rows: Vec<usize> = (0..records.len()).filter(|&row| is_wanted(&records[row].id())).collect();
    let mut proposals = Proposals::new();
    if rows.is_empty() {
        return Ok(proposals);
    }
    sights.predict(&rows, &mut |volume, slices| {
        for (&row, slice) in volume.iter().zip(slices).filter(|(row, _)| rows.contains(row)) {
            proposals.entry(records[row].case.clone()).or_default().insert(records[row].index, slice.mask);
        }
    })?;
    Ok(proposals)
}
