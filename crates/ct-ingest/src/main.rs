//! `sam-mix-data`: CT data sets into slice stores, and a look at what is in them. Needs no libtorch.

mod progress;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ct_ingest::{Manifest, PrepareOptions, StoreSummary, Summary, prepare, summarise, write_montage};
use serde_json::json;
use slice_store::{SliceStore, StoreSettings, WindowAt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Prepares CT data sets as slice stores and shows what is in them.
#[derive(Parser)]
#[command(name = "sam-mix-data", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Prepare(PrepareArgs),
    Inspect(InspectArgs),
}

/// Prepare the volumes of a data set as a slice store
///
/// Every volume is read, its mask is compared with it (shape, spacing, affine), both are brought into display order (rows
/// to posterior, columns to the patient's left, slices from inferior to superior), resized and written to the store in HU.
/// An interrupted run is resumed by running it again; cases that are in the store already are left alone.
#[derive(Args)]
#[command(
    args_override_self = true,
    after_long_help = "\
Examples:
  sam-mix-data prepare --manifest lits --data ~/LiTS --store stores/lits
  sam-mix-data prepare --manifest totalsegmentator --data ~/Totalsegmentator_dataset_v201 --store stores/total --jobs 4
  sam-mix-data prepare --manifest my-spleen.json --data ~/spleen --store stores/spleen --size 512

Exit status: 0 if every case is in the store, 1 if some could not be prepared (they are listed), 130 if interrupted."
)]
struct PrepareArgs {
    /// Name of a manifest in data-manifests/, or the path of a .json file
    #[arg(long, value_name = "NAME")]
    manifest: String,
    /// The data set's directory; nothing in it is changed
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The store's directory; it is made, or resumed
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Side of the stored slices in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = StoreSettings::default().slice_size)]
    size: usize,
    /// When intensities are clipped to the window (level 40, width 400)
    #[arg(long, value_enum, default_value_t = When::Load)]
    window_at: When,
    /// The headers' millimetres are nominal: mark them as not to be trusted
    ///
    /// Metrics in millimetres are then not given. The same as `"spacing_trusted": false` in the manifest.
    #[arg(long)]
    spacing_untrusted: bool,
    /// Volumes to work on at the same time; each needs memory for a volume [default: processors, 8 at most]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// When intensities are clipped to the window.
#[derive(Clone, Copy, ValueEnum)]
enum When {
    /// By the training's loader: the store keeps all HU
    Load,
    /// Before the resize, as the SAM-Mix authors' script does
    Prepare,
}

/// Show what is in a slice store
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  sam-mix-data inspect stores/lits
  sam-mix-data inspect stores/lits --montage lits.png    # the liver at the image's left, the spine at the bottom?
  sam-mix-data inspect stores/lits --json | jq .target_slices")]
struct InspectArgs {
    /// The store's directory
    store: PathBuf,
    /// Write a contact sheet of slices with the target outlined
    #[arg(long, value_name = "PNG")]
    montage: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a shell expects of a program that ended on Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Prepare(args) => run_prepare(&args),
        Command::Inspect(args) => run_inspect(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_prepare(args: &PrepareArgs) -> anyhow::Result<ExitCode> {
    let stop = stop_on_interrupt()?;
    let options = prepare_options(args)?;
    let progress = progress::Progress::new();
    let summary = prepare(&options, &stop, &|event| progress.show(&event))?;
    progress.finish();
    if args.json {
        println!("{:#}", prepare_json(&options, &summary));
    } else {
        print_prepare(&options, &summary);
    }
    Ok(match summary {
        Summary { remaining: 1.., .. } => ExitCode::from(INTERRUPTED),
        Summary { failed, .. } if !failed.is_empty() => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

fn prepare_options(args: &PrepareArgs) -> anyhow::Result<PrepareOptions> {
    let here = std::env::current_dir().context("cannot find the working directory")?;
    let mut manifest = Manifest::load(&args.manifest, &here)?;
    manifest.spacing_trusted &= !args.spacing_untrusted;
    let window_at = match args.window_at {
        When::Load => WindowAt::Load,
        When::Prepare => WindowAt::Prepare,
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(PrepareOptions {
        data: args.data.clone(),
        store: args.store.clone(),
        manifest,
        settings: StoreSettings { slice_size: args.size, window_at, ..StoreSettings::default() },
        jobs: args.jobs.map_or(processors.min(8), usize::from),
    })
}

/// The first Ctrl-C asks the workers to stop, the second ends the program.
fn stop_on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("stopping; press Ctrl-C again to stop at once");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}

fn print_prepare(options: &PrepareOptions, summary: &Summary) {
    let store = options.store.display();
    for (case, reason) in &summary.failed {
        eprintln!("failed: {case}: {reason}");
    }
    if summary.remaining > 0 {
        println!(
            "interrupted: {} cases are whole, {} are left; run the same command again to go on",
            summary.prepared + summary.unchanged,
            summary.remaining
        );
        return;
    }
    let [cases, patients, slices, target_slices] = summary.counts();
    match (summary.prepared, summary.failed.len()) {
        (0, 0) => println!("nothing to do: all {} cases are in '{store}' already", summary.unchanged),
        (prepared, 0) => println!("{prepared} cases prepared, {} unchanged", summary.unchanged),
        (prepared, failed) => println!("{prepared} cases prepared, {} unchanged, {failed} failed", summary.unchanged),
    }
    println!(
        "'{store}': {cases} cases of {patients} patients, {slices} slices, {target_slices} with {}",
        options.manifest.target
    );
}

fn prepare_json(options: &PrepareOptions, summary: &Summary) -> serde_json::Value {
    let [cases, patients, slices, target_slices] = summary.counts();
    let failed: Vec<_> =
        summary.failed.iter().map(|(case, reason)| json!({ "case": case, "reason": reason })).collect();
    json!({
        "store": options.store,
        "finished": summary.remaining == 0,
        "prepared": summary.prepared,
        "unchanged": summary.unchanged,
        "failed": failed,
        "remaining": summary.remaining,
        "cases": cases,
        "patients": patients,
        "slices": slices,
        "target_slices": target_slices,
    })
}

fn run_inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let store = SliceStore::open(&args.store)?;
    let summary = summarise(&store);
    let tiles = args.montage.as_ref().map(|path| write_montage(&store, path)).transpose()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print_summary(&summary);
        for tile in tiles.into_iter().flatten() {
            println!("montage row {}, column {}: {}", tile.row, tile.column, tile.slice);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_summary(summary: &StoreSummary) {
    let StoreSummary { dataset, target, settings, .. } = summary;
    println!("data set      {dataset} ({target}), prepared by version {}", summary.tool_version);
    println!("checksum      {}", summary.checksum);
    println!(
        "slices        {0} x {0} pixels, HU {1} to {2}",
        settings.slice_size, settings.stored_hu[0], settings.stored_hu[1]
    );
    match (settings.window_at, summary.hu_range) {
        (_, None) => println!("              there are none"),
        (WindowAt::Load, Some([low, high])) => println!("              found {low} to {high}"),
        (WindowAt::Prepare, Some([low, high])) => {
            println!("              windowed before the resize, found {low} to {high}");
        }
    }
    println!(
        "content       {} cases of {} patients, {} slices, {} with {target}",
        summary.cases.len(),
        summary.patients,
        summary.slices,
        summary.target_slices
    );
    println!();
    println!(
        "{:<16} {:<16} {:>6} {:>12} {:>14}  row, column, slice spacing (mm)",
        "case", "patient", "slices", "with target", "target pixels"
    );
    for case in &summary.cases {
        let [row, column, slice] = case.spacing_mm;
        let trust = if case.spacing_valid { "" } else { "  not trusted" };
        println!(
            "{:<16} {:<16} {:>6} {:>12} {:>14}  {row:.3}, {column:.3}, {slice:.3}{trust}",
            case.case, case.patient, case.slices, case.target_slices, case.target_pixels
        );
    }
}
