//! `sam-mix evaluate`.

use super::{Compute, open, open_run};
use crate::registry::Registry;
use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use ct_ingest::NativeMasks;
use evaluation::{Evaluator, table};
use predictor::Model;
use run_record::checkpoint::Which;
use slice_sampling::Selection;
use slice_sampling::rows_of;
use slice_store::SliceStore;
use stage_api::PromptKinds;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use whole_file::{Existing, check_place};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Split {
    Test,
    Validation,
    All,
}

#[derive(Args)]
pub(super) struct EvaluateArgs {
    /// Run directory
    #[arg(long)]
    run: PathBuf,
    /// Prepared store: the run's own, or one of another data set
    #[arg(long)]
    store: PathBuf,
    /// Which slices; `all` is for a store that the run was not trained on
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Print one JSON object to standard output instead of the table
    #[arg(long)]
    json: bool,
    /// Evaluate the last checkpoint instead of the best
    #[arg(long)]
    last: bool,
    /// Predict in another way than the run's configuration says: prediction.KEY=VALUE, prompt.KEY=VALUE or
    /// evaluation.KEY=VALUE
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "output")]
    set: Vec<String>,
    /// Folder of the results [default: `evaluation` in the run]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Replace results that are in the folder of --output
    #[arg(long, requires = "output")]
    overwrite: bool,
    /// Folder of the data set that the store was prepared from: adds Dice, surface Dice at 2 mm, HD95 and ASSD in mm on the
    /// volumes' own voxels, against their own masks
    #[arg(long, value_name = "FOLDER")]
    volumes: Option<PathBuf>,
    /// Folder that keeps what the pretrained encoder makes of the slices: evaluations that find it there don't encode them again
    #[arg(long, value_name = "FOLDER")]
    embeddings: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
}

/// `false` if it was stopped.
pub(super) fn evaluate(registry: &Registry, arguments: &EvaluateArgs, stop: &AtomicBool) -> Result<bool> {
    let (config, record) = open_run(&arguments.run, &arguments.set)?;
    let store = SliceStore::open(&arguments.store)?;
    ensure!(
        store.info().target == record.store.target,
        "the run segments the {}, but the masks of '{}' are of the {}",
        record.store.target,
        arguments.store.display(),
        store.info().target
    );
    let own = store.checksum() == record.store.checksum;
    let path = arguments.run.join("selection.json");
    let selection = Selection::load(&path)?;
    if own {
        selection.check(&path, &store)?;
    }
    let (split, rows) = match (arguments.split, own) {
        (Split::All, true) => bail!(
            "'{}' is the store that the run was trained on; all of it would count slices that training saw. \
             --split test evaluates on the patients that it did not see",
            arguments.store.display()
        ),
        (Split::All, false) => ("all", (0..store.records().len()).collect()),
        (_, false) => bail!(
            "'{}' is not the store that the run was trained on (checksum {} instead of {}): its splits mean nothing there. \
             --split all evaluates on the whole of another data set",
            arguments.store.display(),
            store.checksum(),
            record.store.checksum
        ),
        (Split::Test, true) => ("test", rows_of(&store, &selection.test)?),
        (Split::Validation, true) => ("validation", rows_of(&store, &selection.validation)?),
    };
    ensure!(
        !rows.is_empty(),
        "the {split} split of '{}' has no slices: train a run whose `sampling` gives it some, or evaluate on another store with \
         --split all",
        arguments.run.display()
    );
    let store = store.for_evaluation();
    ensure!(
        rows.iter().any(|&row| store.truth(row).is_some()),
        "no slice of the {split} split is annotated in the store '{}': there is nothing to compare with. `predict` makes masks \
         without",
        arguments.store.display()
    );
    // Another data set's results stand beside the run's own under that set's name.
    let name = if own { split.to_owned() } else { store.info().dataset.clone() };
    let output = arguments.output.clone().unwrap_or_else(|| arguments.run.join("evaluation"));
    if arguments.output.is_some() {
        for file in [format!("{name}.json"), format!("{name}.parquet"), name.clone()] {
            let existing = Existing::by_switch(arguments.overwrite);
            check_place(&output.join(file), &[], existing)?;
        }
    }
    let cases: BTreeSet<&str> = rows.iter().map(|&row| store.records()[row].case.as_str()).collect();
    let native = arguments.volumes.as_deref().map(|data| NativeMasks::open(&store, data, &cases)).transpose()?;
    let (device, _) = open(&arguments.compute)?;
    let which = if arguments.last { Which::Last } else { Which::Best };
    let mut model_config = config.model();
    let volume = &mut model_config.prediction.volume;
    if split == "validation" && (volume.propagate || volume.largest_component) {
        eprintln!(
            "note: validation slices are no neighbours of each other: each is evaluated by itself, without the rules of \
             `prediction.volume`"
        );
        (volume.propagate, volume.largest_component) = (false, false);
    }
    let model = Model::from_run(&arguments.run, which, &model_config, &registry.models, device)?;
    let takes_prompts = model.segmenter.prompts() != PromptKinds::None;
    let pretrained =
        takes_prompts.then(|| registry.models.segmenter(&model_config.segmenter, 0, device)).transpose()?;
    let embeddings = arguments.embeddings.as_deref();
    let evaluator = Evaluator {
        config: &model_config,
        oracle_margin_px: config.evaluation.oracle_margin_px,
        box_seconds: config.label_seconds.box_around,
        model: &model,
        pretrained: pretrained.as_deref(),
        store: &store,
        native: native.as_ref(),
        label_budget: &record.label_budget,
        device,
        embeddings,
        stop,
    };
    let Some(evaluation) = evaluator.run(&name, &rows, &output)? else {
        eprintln!("stopped; no results were written");
        return Ok(false);
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&evaluation)?);
    } else {
        print!("{}", table(&evaluation));
    }
    Ok(true)
}
