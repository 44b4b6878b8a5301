//! `sam-mix-labels`: masks from annotators' programs into a slice store. Needs no libtorch.

use annotation::{FirstPicture, ImportCoverage, ImportOptions, import_crops, import_labels, undo_crops, undo_import};
use clap::{Args, Parser, Subcommand, ValueEnum};
use slice_store::{LabelCounts, SliceStore, counted};
use std::path::PathBuf;
use std::process::ExitCode;

/// Brings masks that annotators drew into a slice store.
#[derive(Parser)]
#[command(name = "sam-mix-labels", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Import(ImportArgs),
}

/// Import masks that were drawn on the CTs of a store
///
/// NIfTI, NRRD, MetaImage, 3D Slicer's .seg.nrrd, DICOM-SEG and RTSTRUCT, on the CT's grid or a part of it; folders of PNG pictures or of DICOM
/// images. Segments count by
/// name. Slices that the masks speak of get them; what these had before is kept, and --undo brings it back. Nothing changes if any file
/// doesn't fit.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  cargo xtask import-labels --store stores/ours --from drawn/ --worklist worklist/worklist.csv --annotator 'reader 1'
  cargo xtask import-labels --store stores/ours --from liver.seg.nrrd --case volume-3 --segment Leber
  cargo xtask import-labels --store stores/ours --from Ground/ --case volume-3 --first-picture highest --mask-coverage all
  cargo xtask import-labels --store stores/ours --undo volume-3
  cargo xtask import-labels --store stores/ours --crops crops/crops.csv

Exit status: 0 if everything was imported, 1 if nothing was.")]
struct ImportArgs {
    /// The store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// A file, or a folder of files named as their cases: CASE.seg.nrrd, CASE.nii.gz, CASE.dcm, …; or of folders of PNG pictures or DICOM slices
    #[arg(long, value_name = "PATH", required_unless_present_any = ["undo", "crops", "undo_crops"])]
    from: Option<PathBuf>,
    /// The table of `choose --crops`, filled in
    #[arg(long, value_name = "CSV", conflicts_with_all = ["from", "undo"])]
    crops: Option<PathBuf>,
    /// Take the last answers about crops back
    #[arg(long, conflicts_with_all = ["from", "undo", "crops"])]
    undo_crops: bool,
    /// The case of a file, or of a folder of pictures or slices, that is not named so
    #[arg(long, value_name = "CASE")]
    case: Option<String>,
    /// Name of the segment that is the target [default: the manifest's]
    #[arg(long, value_name = "NAME")]
    segment: Option<String>,
    /// The list that the annotator had: its slices were looked at, and those that are empty show no target
    #[arg(long, value_name = "CSV")]
    worklist: Option<PathBuf>,
    /// Which slices a mask speaks of, beside the worklist's
    #[arg(long, value_enum, default_value_t = Coverage::Painted)]
    mask_coverage: Coverage,
    /// Who drew it; kept in the store as it is typed
    #[arg(long, value_name = "NAME")]
    annotator: Option<String>,
    /// Take the last import into these cases back
    #[arg(long, value_name = "CASE", num_args = 1.., conflicts_with_all = ["from", "case", "segment", "worklist", "mask_coverage", "annotator", "resample", "first_picture"])]
    undo: Vec<String>,
    /// Put masks of another grid onto the CT's, each of its voxels getting the nearest one's label; NIfTI, NRRD, MetaImage
    #[arg(long, value_enum, value_name = "HOW")]
    resample: Option<Resample>,
    /// Which slice the first of a folder of PNG pictures is
    #[arg(long, value_enum, value_name = "END")]
    first_picture: Option<First>,
    /// Print what was imported as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Resample {
    /// The nearest voxel's label
    Nearest,
}

#[derive(Clone, Copy, ValueEnum)]
enum First {
    /// The most inferior
    Lowest,
    /// The most superior
    Highest,
}

#[derive(Clone, Copy, ValueEnum)]
enum Coverage {
    /// Slices in which anything is painted; the others stay as they are
    Painted,
    /// All slices: where nothing is painted, there is no target
    All,
}

fn main() -> ExitCode {
    let Command::Import(arguments) = Cli::parse().command;
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &ImportArgs) -> anyhow::Result<()> {
    let store = &arguments.store;
    if arguments.undo_crops {
        println!("{} about crops taken back", counted(undo_crops(store)?, "answer"));
        return Ok(());
    }
    if let Some(crops) = &arguments.crops {
        let [shown, not] = import_crops(store, crops, arguments.annotator.as_deref())?;
        if arguments.json {
            println!("{}", serde_json::json!({ "crops": shown + not, "with_target": shown }));
        } else {
            println!("{} answered: {shown} show the target, {not} don't", counted(shown + not, "crop"));
        }
        return Ok(());
    }
    let Some(from) = &arguments.from else {
        for (case, slices) in undo_import(store, &arguments.undo)? {
            println!("case '{case}': {} as before the last import", counted(slices, "slice"));
        }
        return summary(store);
    };
    let imported = import_labels(&ImportOptions {
        store: store.clone(),
        from: from.clone(),
        case: arguments.case.clone(),
        segment: arguments.segment.clone(),
        worklist: arguments.worklist.clone(),
        coverage: match arguments.mask_coverage {
            Coverage::Painted => ImportCoverage::Painted,
            Coverage::All => ImportCoverage::All,
        },
        annotator: arguments.annotator.clone(),
        resample: arguments.resample.is_some(),
        first_picture: arguments.first_picture.map(|first| match first {
            First::Lowest => FirstPicture::Lowest,
            First::Highest => FirstPicture::Highest,
        }),
    })?;
    for (case, warning) in imported.cases.iter().flat_map(|of| of.warnings.iter().map(|warning| (&of.case, warning))) {
        eprintln!("warning: case '{case}': {warning}");
    }
    if !imported.undrawn.is_empty() {
        eprintln!("warning: no file is of these cases of the work list (slices): {}", imported.undrawn.join(", "));
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&imported)?);
        return Ok(());
    }
    for of in &imported.cases {
        let empty: Vec<String> = of.empty.iter().map(u32::to_string).collect();
        let empty = if empty.is_empty() { String::new() } else { format!(", empty: slices {}", empty.join(", ")) };
        let replaced =
            if of.replaced > 0 { format!(", {} in the place of another", of.replaced) } else { String::new() };
        println!(
            "case '{}': {}, {} with the target{empty}{replaced}",
            of.case,
            counted(of.masks, "mask"),
            of.with_target
        );
    }
    summary(store)
}

fn summary(path: &std::path::Path) -> anyhow::Result<()> {
    let store = SliceStore::open(path)?;
    println!("'{}': {}", path.display(), LabelCounts::of(store.records()).words(&store.info().target));
    Ok(())
}
