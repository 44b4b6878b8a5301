//! One run on several ranks, started by `mpirun`: its weights are those of one rank, it goes on with any number of ranks, and a
//! rank that fails ends all. Only in a build with MPI:
//!
//! `cargo test --release --workspace --features trainer/mpi --test mpi`

mod common;

use common::{store, weights, weights_of};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sam-mix");

/// No rank may keep the others waiting for longer.
const MINUTE: Duration = Duration::from_mins(1);

const SAMPLING: &str = r#"
[sampling]
labelled = 4
validation_slices = 3
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
"#;

/// Batch normalisation in every layer, crops, strongly augmented copies; then the decoder and the adapters.
///
/// Here and in [`EMBEDDINGS`], by small steps down the gradient: with Adam's, or with large ones, rounding grows until two runs of one
/// rank on one and on two threads differ as much.
const SLICES: &str = r#"
[optimizer]
kind = "sgd"
momentum = 0.0
lr."*" = 1e-3
lr.classifier = 1e-4
lr.lora = 1e-3
[classifier]
batch_slices = 5
batch_crops = 8
crop_negatives = true
crop_size = 48
consistency = 0.5
settings = { block = "basic", blocks = [1, 1, 1, 1], width = 4 }
[augmentation.classifier]
rotate_deg = 10
[[phase]]
name = "classifier"
epochs = 20
labelled_passes = 0
[[phase]]
name = "decoder"
epochs = 1
encoder = "frozen"
batch_labelled = 3
[[phase]]
name = "adapters"
epochs = 1
encoder = "lora"
batch_labelled = 3
"#;

/// As the shipped configurations have it, without dropout: whose numbers are another rank's own.
const EMBEDDINGS: &str = r#"
[optimizer]
kind = "sgd"
momentum = 0.0
lr."*" = 1e-3
lr.classifier = 1e-2
[classifier]
kind = "embedding"
weak_crops = "one-per-slice"
batch_slices = 5
batch_masks = 3
settings = { channels = 16 }
[prompt]
threshold = 0.5
absolute = true
[augmented_copies]
count = 4
[augmentation.labelled]
rotate_deg = 20
noise_hu = 20
[[phase]]
name = "classifier"
epochs = 20
labelled_passes = 0
[[phase]]
name = "decoder"
epochs = 1
labelled_steps = 6
batch_labelled = 3
encoder = "frozen"
"#;

/// No classifier, and quick steps.
const PROMPTLESS: &str = r#"
[classifier]
kind = "none"
[segmenter]
kind = "unet"
settings = { widths = [4, 8] }
[optimizer]
accumulate_steps = 2
clip_norm = 1.0
ema_decay = 0.9
[augmentation.labelled]
rotate_deg = 10
[[phase]]
name = "all"
epochs = 20
labelled_steps = 12
batch_labelled = 3
encoder = "trained"
"#;

/// Whether there is an MPI to test with; a line says where not.
fn has_mpi(test: &str) -> bool {
    if !cfg!(feature = "mpi") {
        println!("skipped: {test} needs a build with MPI (--features trainer/mpi)");
        return false;
    }
    let found = Command::new("mpirun").arg("--version").output().is_ok();
    if !found {
        println!("skipped: {test} needs mpirun (Open MPI)");
    }
    found
}

/// A folder with a store and a configuration.
struct Place {
    folder: tempfile::TempDir,
    weights: Option<std::path::PathBuf>,
}

impl Place {
    fn new(config: &str, weights: Option<std::path::PathBuf>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path());
        std::fs::write(folder.path().join("config.toml"), [SAMPLING, config].concat()).unwrap();
        Self { folder, weights }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// What one rank is started with.
    fn arguments(&self, run: &str, store: &str) -> Vec<String> {
        let text = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let begun = self.path(run).join("run.json").exists();
        let mut all = vec!["train".into(), "--run".into(), text(run), "--store".into(), text(store)];
        all.extend(if begun { vec!["--resume".into()] } else { vec!["--config".into(), text("config.toml")] });
        all.extend(["--device", "cpu", "--threads", "1"].map(String::from));
        all.extend(self.weights.iter().flat_map(|w| ["--weights".into(), w.to_str().unwrap().to_owned()]));
        all
    }

    fn start(&self, run: &str, ranks: usize) -> Child {
        let mut command = if ranks == 1 { Command::new(PROGRAM) } else { mpirun() };
        if ranks > 1 {
            command.args(["-n", &ranks.to_string(), PROGRAM]);
        }
        command.args(self.arguments(run, "store"));
        if ranks > 1 {
            command.arg("--mpi");
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn train(&self, run: &str, ranks: usize) {
        let output = self.start(run, ranks).wait_with_output().unwrap();
        assert!(output.status.success(), "{ranks} ranks: {}", said(&output));
    }

    /// Starts, and does something when so many steps are logged.
    fn train_until(&self, run: &str, ranks: usize, steps: usize, then: impl FnOnce(&Child)) -> Output {
        let mut child = self.start(run, ranks);
        let begun = Instant::now();
        while logged_steps(&self.path(run)) < steps {
            assert!(begun.elapsed() < 5 * MINUTE, "step {steps} was not reached");
            assert!(child.try_wait().unwrap().is_none(), "it ended before step {steps}");
            std::thread::sleep(Duration::from_millis(20));
        }
        then(&child);
        let begun = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert!(begun.elapsed() < MINUTE, "{:?} after the end of a rank", begun.elapsed());
        output
    }
}

fn mpirun() -> Command {
    let mut command = Command::new("mpirun");
    // As root, and with more ranks than cores, which a container's tests may be.
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn logged_steps(run: &Path) -> usize {
    let log = std::fs::read_to_string(run.join("metrics.csv")).unwrap_or_default();
    log.lines().filter(|line| line.starts_with("step")).count()
}

/// Sends a signal to the last of an `mpirun`'s ranks.
fn signal(mpirun: &Child, signal: &str) {
    let of = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = |pid: &str| of(pid).rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned));
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbers = processes.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let ranks = numbers.filter(|pid| parent(pid) == Some(mpirun.id().to_string()));
    let last = ranks.max_by_key(|pid| pid.parse::<u32>().unwrap()).expect("mpirun has children");
    assert!(Command::new("kill").args([signal, &last]).status().unwrap().success());
}

/// Weights that differ by less than 1e-6 of the larger of 1 and themselves, and the same steps.
///
/// A bias of an attention's keys moves no output, so that its gradient is rounding and nothing else.
fn assert_close(a: &Path, b: &Path) {
    let (x, y) = (weights_of(a, "weights.safetensors"), weights_of(b, "weights.safetensors"));
    assert!(x.keys().eq(y.keys()) && x.len() > 5);
    for (name, tensor) in x.iter().filter(|(name, _)| !name.ends_with("k_proj.bias")) {
        let scale = tensor.abs().clamp_min(1.0);
        let difference = ((tensor - &y[name]) / scale).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "`{name}` differs by {difference}");
    }
    assert_eq!(logged_steps(a), logged_steps(b));
}

fn two_ranks_equal_one(config: &str, weights: Option<std::path::PathBuf>) {
    let place = Place::new(config, weights);
    place.train("one", 1);
    place.train("two", 2);
    assert!(logged_steps(&place.path("one")) >= 100);
    assert_close(&place.path("one"), &place.path("two"));
}

#[test]
fn two_ranks_equal_one_where_the_classifier_reads_slices() {
    const NAME: &str = "two_ranks_equal_one_where_the_classifier_reads_slices";
    if let (true, Some(weights)) = (has_mpi(NAME), weights(NAME)) {
        two_ranks_equal_one(SLICES, Some(weights));
    }
}

#[test]
fn two_ranks_equal_one_where_the_classifier_reads_embeddings() {
    const NAME: &str = "two_ranks_equal_one_where_the_classifier_reads_embeddings";
    if let (true, Some(weights)) = (has_mpi(NAME), weights(NAME)) {
        two_ranks_equal_one(EMBEDDINGS, Some(weights));
    }
}

#[test]
fn two_ranks_equal_one_without_prompts() {
    if has_mpi("two_ranks_equal_one_without_prompts") {
        two_ranks_equal_one(PROMPTLESS, None);
    }
}

#[test]
fn a_signal_to_one_rank_stops_all_and_another_number_of_ranks_goes_on() {
    if !has_mpi("a_signal_to_one_rank_stops_all_and_another_number_of_ranks_goes_on") {
        return;
    }
    let place = Place::new(PROMPTLESS, None);
    place.train("whole", 1);
    let output = place.train_until("stopped", 2, 40, |run| signal(run, "-TERM"));
    let text = std::fs::read_to_string(place.path("stopped").join("run.json")).unwrap();
    assert!(text.contains("\"interrupted\""), "{text}: {}", said(&output));
    // One rank, killed, then three.
    let before = logged_steps(&place.path("stopped"));
    place.train_until("stopped", 1, before + 40, |run| {
        assert!(Command::new("kill").args(["-KILL", &run.id().to_string()]).status().unwrap().success());
    });
    place.train("stopped", 3);
    assert_close(&place.path("whole"), &place.path("stopped"));
}

#[test]
fn a_rank_that_is_killed_ends_all() {
    if !has_mpi("a_rank_that_is_killed_ends_all") {
        return;
    }
    let place = Place::new(PROMPTLESS, None);
    let output = place.train_until("killed", 2, 10, |run| signal(run, "-KILL"));
    assert!(!output.status.success() && said(&output).contains("signal 9"), "{}", said(&output));
}

#[test]
fn a_rank_that_fails_ends_all_with_its_reason() {
    if !has_mpi("a_rank_that_fails_ends_all_with_its_reason") {
        return;
    }
    let place = Place::new(PROMPTLESS, None);
    let begun = Instant::now();
    // The second rank's store is not there.
    let mut command = mpirun();
    command.args(["-n", "1", PROGRAM]).args(place.arguments("run", "store")).args(["--mpi", ":", "-n", "1", PROGRAM]);
    let output = command.args(place.arguments("run", "missing")).arg("--mpi").output().unwrap();
    assert!(!output.status.success() && begun.elapsed() < MINUTE);
    assert!(said(&output).contains("error on rank 1 of 2: ") && said(&output).contains("missing"), "{}", said(&output));
    // The first rank's configuration is wrong, while the other waits.
    let wrong = mpirun()
        .args(["-n", "2", PROGRAM])
        .args(place.arguments("other", "store"))
        .args(["--mpi", "--set", "sampling.labelled=0"])
        .output()
        .unwrap();
    assert!(!wrong.status.success() && said(&wrong).contains("error on rank 0 of 2: "), "{}", said(&wrong));
}

#[test]
fn what_ranks_cannot_share_is_refused() {
    if !has_mpi("what_ranks_cannot_share_is_refused") {
        return;
    }
    let place = Place::new(PROMPTLESS, None);
    let refused = |mpi: &[&str], set: &str, expected: &str| {
        let mut command = mpirun();
        command.args(["-n", "2", PROGRAM]).args(place.arguments("run", "store")).args(mpi).args(["--set", set]);
        let output = command.output().unwrap();
        assert!(!output.status.success() && said(&output).contains(expected), "{}", said(&output));
        assert!(!place.path("run").exists(), "nothing is written");
    };
    refused(&["--mpi"], "segmentation_loss.batch-dice=1", "of all masks of a step at once");
    refused(&[], "seed=0", "--mpi is missing");
}

/// In any build.
#[test]
fn a_build_without_mpi_says_how_to_get_one() {
    if cfg!(feature = "mpi") {
        return println!("skipped: a_build_without_mpi_says_how_to_get_one needs a build without MPI");
    }
    let place = Place::new(PROMPTLESS, None);
    let output = Command::new(PROGRAM).args(place.arguments("run", "store")).arg("--mpi").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("--features trainer/mpi") && !place.path("run").exists(), "{}", said(&output));
}
