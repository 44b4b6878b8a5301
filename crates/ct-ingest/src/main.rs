//! `sam-mix-data`: CT data sets into slice stores, and a look at what is in them. Needs no libtorch.

mod progress;
mod show;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ct_ingest::{
    Manifest, MaskCoverage, PrepareOptions, Shard, Summary, Verified, check, prepare, summarise, verify, write_montage,
};
use slice_store::{MaskResize, Scale, SliceStore, StoreSettings, Window, WindowAt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use whole_file::{Existing, check_place};

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
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[command(
    args_override_self = true,
    after_long_help = "\
Examples:
  sam-mix-data prepare --manifest lits --data ~/LiTS --store stores/lits
  sam-mix-data prepare --manifest totalsegmentator --data ~/Totalsegmentator_dataset_v201 --store stores/total --jobs 4
  sam-mix-data prepare --manifest my-spleen.json --data ~/spleen --store stores/spleen --size native
  sam-mix-data prepare --manifest lits --data ~/LiTS --store stores/lits --check     # look first, write nothing
  sam-mix-data prepare --manifest lits --data ~/LiTS --store parts/3 --shard 3/8      # on one of eight machines
  sam-mix-data prepare --manifest lits --data ~/LiTS --store stores/lits --merge parts/1 --merge parts/2    # and so on
  sam-mix-data prepare --manifest lits --data ~/few --store stores/few --mask-coverage painted --presence ~/few/presence.csv

Exit status: 0 if every case is in the store, 1 if some could not be prepared or have left it, as their files are gone (they \
are listed), 130 if interrupted. --check: 1 where a preparation would end so, or would refuse the store."
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
    /// Side of the stored slices in pixels, or `native`: no scaling, the largest slice of the data set decides
    #[arg(long, value_name = "PIXELS|native", default_value = "256")]
    size: Size,
    /// HU that are stored, LOW:HIGH; what is outside is clipped
    #[arg(long, value_name = "LOW:HIGH", default_value = "-1024:3071", allow_hyphen_values = true)]
    hu: Pair<i16>,
    /// When intensities are clipped to the window
    #[arg(long, value_enum, default_value_t = When::Load)]
    window_at: When,
    /// The window of `--window-at prepare`, in HU
    #[arg(long, value_name = "LEVEL:WIDTH", default_value = "40:400", allow_hyphen_values = true)]
    window: Pair<f32>,
    /// How masks are resized
    #[arg(long, value_enum, default_value_t = Resize::Area)]
    mask_resize: Resize,
    /// The headers' millimetres are nominal: mark them as not to be trusted
    ///
    /// Metrics in millimetres are then not given. The same as `"spacing_trusted": false` in the manifest.
    #[arg(long)]
    spacing_untrusted: bool,
    /// Which slices a mask speaks of: `all` (where nothing is painted, there is no target) or `painted` (the others are unknown)
    ///
    /// With it, cases may be without a mask. The same as `"mask_coverage"` in the manifest, which can also list slices.
    #[arg(long, value_enum)]
    mask_coverage: Option<Coverage>,
    /// A list of image-level labels, CSV with the columns case,first,last,presence
    ///
    /// The same as `"presence"` in the manifest, but as the path is typed. docs/reference/slice-store.md has its rules.
    #[arg(long, value_name = "CSV")]
    presence: Option<PathBuf>,
    /// Volumes to work on at the same time; each needs memory for a volume [default: processors, 8 at most]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Read every case to its last byte, say what each is and what would be done, and write nothing
    #[arg(long)]
    check: bool,
    /// Stop at the first case that can't be prepared
    #[arg(long)]
    strict: bool,
    /// Prepare all cases again, in the place of whatever the store holds
    #[arg(long)]
    redo: bool,
    /// Prepare a part of the cases, for example `2/8`: on as many machines as there are parts, each into a store of its own
    #[arg(long, value_name = "PART/OF", conflicts_with_all = ["check", "redo"])]
    shard: Option<Shard>,
    /// Copy what this store holds of the same data set before the rest is prepared; repeatable
    #[arg(long, value_name = "STORE", conflicts_with_all = ["check", "redo"])]
    merge: Vec<PathBuf>,
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

/// Which slices a mask speaks of.
#[derive(Clone, Copy, ValueEnum)]
enum Coverage {
    /// All of the volume
    All,
    /// Those in which something is painted
    Painted,
}

/// How masks are resized.
#[derive(Clone, Copy, ValueEnum)]
enum Resize {
    /// A pixel is the target if more than half of its area is: masks stay where their images are
    Area,
    /// Nearest neighbour, as PIL and most Python scripts do: masks of half the size move by a quarter of a pixel
    Nearest,
}

/// `PIXELS` or `native`.
#[derive(Clone, Copy)]
struct Size(Option<usize>);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "native" => Ok(Self(None)),
            _ => text.parse().map(|size| Self(Some(size))).map_err(|_| "expected pixels or `native`".to_owned()),
        }
    }
}

/// Two numbers with a colon between.
#[derive(Clone, Copy)]
struct Pair<T>(T, T);

impl<T: FromStr> FromStr for Pair<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || "expected two numbers with a colon between".to_owned();
        let (first, second) = text.split_once(':').ok_or_else(error)?;
        Ok(Self(first.parse().map_err(|_| error())?, second.parse().map_err(|_| error())?))
    }
}

/// Show what is in a slice store
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  sam-mix-data inspect stores/lits
  sam-mix-data inspect stores/lits --montage lits.png    # the liver at the image's left, the spine at the bottom?
  sam-mix-data inspect stores/lits --verify              # is every byte of the pixels what was written?
  sam-mix-data inspect stores/lits --json | jq .presence

Exit status of --verify: 1 if an image or a mask is not what was written (all are listed), or if there is nothing to compare with.")]
struct InspectArgs {
    /// The store's directory
    store: PathBuf,
    /// Write a contact sheet of slices with the target outlined
    #[arg(long, value_name = "PNG")]
    montage: Option<PathBuf>,
    /// Replace the contact sheet if it is there
    #[arg(long, requires = "montage")]
    overwrite: bool,
    /// Read all images and masks and compare them with the digests that they were written with
    #[arg(long)]
    verify: bool,
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
    if args.check {
        let found = check(&options, &stop, &|event| progress.show(&event))?;
        progress.finish();
        if args.json {
            println!("{}", serde_json::to_string_pretty(&found)?);
        } else {
            show::check(&options, &found);
        }
        return Ok(match (found.interrupted, found.is_well()) {
            (true, _) => ExitCode::from(INTERRUPTED),
            (false, false) => ExitCode::FAILURE,
            (false, true) => ExitCode::SUCCESS,
        });
    }
    let summary = prepare(&options, &stop, &|event| progress.show(&event))?;
    progress.finish();
    if args.json {
        println!("{:#}", show::prepare_json(&options, &summary));
    } else {
        show::prepare(&options, &summary);
    }
    Ok(match summary {
        Summary { remaining: 1.., .. } => ExitCode::from(INTERRUPTED),
        Summary { failed, left, .. } if !(failed.is_empty() && left.is_empty()) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// From what was typed to what will be done.
fn prepare_options(args: &PrepareArgs) -> anyhow::Result<PrepareOptions> {
    let here = std::env::current_dir().context("cannot find the working directory")?;
    let mut manifest = Manifest::load(&args.manifest, &here)?;
    manifest.spacing_trusted &= !args.spacing_untrusted;
    if let Some(coverage) = args.mask_coverage {
        manifest.mask_coverage = Some(match coverage {
            Coverage::All => MaskCoverage::All,
            Coverage::Painted => MaskCoverage::Painted,
        });
    }
    if let Some(list) = &args.presence {
        // Not below the data directory, as the manifest's is.
        manifest.presence = Some(std::path::absolute(list).context("cannot find the working directory")?);
    }
    let window_at = match args.window_at {
        When::Load => WindowAt::Load,
        When::Prepare => WindowAt::Prepare,
    };
    let mask_resize = match args.mask_resize {
        Resize::Area => MaskResize::Area,
        Resize::Nearest => MaskResize::Nearest,
    };
    let default = StoreSettings::default();
    let settings = StoreSettings {
        slice_size: args.size.0.unwrap_or(default.slice_size),
        stored_hu: [args.hu.0, args.hu.1],
        window_at,
        window: Window { level: args.window.0, width: args.window.1 },
        scale: if args.size.0.is_some() { Scale::Fit } else { Scale::Native },
        mask_resize,
    };
    settings.check()?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(PrepareOptions {
        data: args.data.clone(),
        store: args.store.clone(),
        manifest,
        settings,
        jobs: args.jobs.map_or(processors.min(8), usize::from),
        strict: args.strict,
        redo: args.redo,
        shard: args.shard,
        merge: args.merge.clone(),
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

fn run_inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.montage {
        check_place(path, &[], Existing::by_switch(args.overwrite))?;
    }
    let store = SliceStore::open(&args.store)?;
    let summary = summarise(&store)?;
    let verified = args.verify.then(|| verify(&store));
    let tiles = args.montage.as_ref().map(|path| write_montage(&store, path)).transpose()?;
    if args.json {
        println!("{:#}", show::summary_json(&summary, verified.as_ref())?);
    } else {
        show::summary(&summary, verified.as_ref());
        for tile in tiles.into_iter().flatten() {
            println!("montage row {}, column {}: {}", tile.row, tile.column, tile.slice);
        }
    }
    let Some(Verified { arrays, changed }) = verified else { return Ok(ExitCode::SUCCESS) };
    anyhow::ensure!(
        arrays > 0,
        "'{}' keeps no digests of its pixels (format {}): `cargo xtask prepare --redo` makes it anew, with them",
        args.store.display(),
        store.info().format_version
    );
    for problem in &changed {
        eprintln!("error: {problem}");
    }
    Ok(if changed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
