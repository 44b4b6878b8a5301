//! `sam-mix choose`: which slices to draw, as a list for an annotator.

use super::program;
use crate::config::Config;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use ct_ingest::{StoredCt, write_sheet};
use serde::Serialize;
use slice_sampling::{Purpose, Worklist, WorklistOrder, worklist};
use slice_store::{KnownCase, SliceStore, Slices, counted};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use whole_file::{Existing, check_place, replace_folder};

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

/// A line of `worklist.csv`.
#[derive(Serialize)]
struct Line {
    /// Counted from 1; tile N of the sheet, row by row.
    number: usize,
    case: String,
    purpose: Purpose,
    /// In the CT's file, along the axis of its slices, counted from 0: 3D Slicer's K.
    file_slice: usize,
    /// Counted from 1.
    itk_snap_slice: usize,
    /// Of the slice's middle, superior positive: 3D Slicer's S.
    position_mm: f64,
    /// `CASE/INDEX` in the store.
    slice: String,
    why: String,
}

/// Slices of the sheet, side by side.
const SHEET_COLUMNS: usize = 8;

pub(super) fn choose(arguments: &ChooseArgs) -> Result<bool> {
    let mut sampling = Config::load(&arguments.config, &arguments.set)?;
    let seed = sampling.seed;
    let sampling = &mut sampling.sampling;
    sampling.labelled = arguments.budget.unwrap_or(sampling.labelled);
    sampling.validation_slices = arguments.validation.unwrap_or(sampling.validation_slices);
    let store = SliceStore::open(&arguments.store)?;
    check_output(&arguments.output, Existing::by_switch(arguments.overwrite))?;
    let order = match arguments.strategy {
        Strategy::Uniform => WorklistOrder::Uniform,
        Strategy::Stratified => WorklistOrder::Stratified,
    };
    let list = worklist(store.records(), sampling, order, seed)?;
    let lines = lines(&store, &list)?;
    if lines.is_empty() {
        println!("nothing to draw: {} and {} slices have a mask that shows the target", list.drawn[0], list.drawn[1]);
        return Ok(true);
    }
    let output = &arguments.output;
    if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder '{}'", folder.display()))?;
    }
    replace_folder(output, |folder| write(folder, &store, &lines))
        .with_context(|| format!("'{}' was not written", output.display()))?;
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

/// What the folder has. Nothing else is in one that is replaced.
const FILES: [&str; 3] = ["worklist.csv", "sheet.png", "how-to-draw.md"];

fn check_output(output: &Path, existing: Existing) -> Result<()> {
    check_place(output, &[], existing)?;
    if output.is_dir() {
        for entry in std::fs::read_dir(output).with_context(|| format!("cannot list '{}'", output.display()))? {
            let name = entry?.file_name();
            ensure!(
                FILES.iter().any(|file| name == *file),
                "--output '{}' holds '{}', which is no part of a work list: name another folder, nothing was replaced",
                output.display(),
                name.to_string_lossy()
            );
        }
    }
    Ok(())
}

/// Where each slice is in the file of its CT.
fn lines(store: &Slices, list: &Worklist) -> Result<Vec<Line>> {
    let mut cts: BTreeMap<&str, (StoredCt, Vec<usize>)> = BTreeMap::new();
    let mut lines = Vec::with_capacity(list.wanted.len());
    for (place, wanted) in list.wanted.iter().enumerate() {
        let case = wanted.slice.case.as_str();
        if !cts.contains_key(case) {
            let known = KnownCase::read(store.path(), store.info(), case);
            let known =
                known.with_context(|| format!("'{}' has no record of case '{case}'", store.path().display()))?;
            let ct = StoredCt::of(store.info(), case, &known)?;
            let numbers = ct.plan().numbers();
            cts.insert(case, (ct, numbers));
        }
        let (ct, numbers) = &cts[case];
        let index = wanted.slice.index as usize;
        let file_slice = numbers[index];
        lines.push(Line {
            number: place + 1,
            case: case.to_owned(),
            purpose: wanted.purpose,
            file_slice,
            itk_snap_slice: file_slice + 1,
            position_mm: ct.centre_mm(index)[2],
            slice: wanted.slice.to_string(),
            why: wanted.why.clone(),
        });
    }
    Ok(lines)
}

fn write(folder: &Path, store: &Slices, lines: &[Line]) -> Result<()> {
    let mut table = csv::Writer::from_path(folder.join(FILES[0]))?;
    lines.iter().try_for_each(|line| table.serialize(line))?;
    table.flush()?;
    let rows = lines.iter().map(|line| store.position(&line.slice.parse().ok()?)).collect::<Option<Vec<usize>>>();
    let rows = rows.context("a work list has the store's slices")?;
    write_sheet(store, &rows, SHEET_COLUMNS, &folder.join(FILES[1]))?;
    std::fs::write(folder.join(FILES[2]), page(&store.info().target, lines))?;
    Ok(())
}

/// What an annotator needs to know.
fn page(target: &str, lines: &[Line]) -> String {
    let mut text = format!(
        "# {} to draw: {target}\n\n\
         **Open and draw.** Open the CT of a case below in 3D Slicer or ITK-SNAP and go to each of its slices: in 3D Slicer the slider of the \
         axial view shows `S`, in ITK-SNAP the axial view shows the slice's number, counted from 1. In 3D Slicer, add one segment in the \
         Segment Editor, name it `{target}`, and outline the {target} in these slices and in no others; in ITK-SNAP, draw with label 1. If a \
         slice shows no {target}, leave it empty: it counts as looked at. Outline everything that belongs to the {target}, vessels in it \
         included, and stop at its surface.\n\n\
         **Save and hand back.** Save one file per case into one folder, named as the case is: `CASE.seg.nrrd` (3D Slicer: Save, with the \
         segmentation ticked) or `CASE.nii.gz` (ITK-SNAP: Segmentation, Save). Hand back the folder. `sheet.png` shows the slices, in this order, \
         eight in a row.\n\n\
         | number | case | 3D Slicer, S (mm) | ITK-SNAP slice | purpose | why |\n| ---: | --- | ---: | ---: | --- | --- |\n",
        counted(lines.len(), "slice")
    );
    for line in lines {
        let purpose = match line.purpose {
            Purpose::Train => "train",
            Purpose::Validation => "validation",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {} | {purpose} | {} |",
            line.number, line.case, line.position_mm, line.itk_snap_slice, line.why
        );
    }
    text
}
