//! What happens to a run whose checkpoint is damaged or can't be saved, or that is asked to go on as another.

mod common;

use common::{Bench, store, weights, weights_of};
use run_record::checkpoint::{WEIGHTS, Which, directory};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

/// The classifier alone, then the decoder, whose moments need more room than all weights.
const CONFIG: &str = r#"
[sampling]
labelled = 2
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
[classifier]
batch_slices = 8
settings = { block = "basic", blocks = [1, 1, 1, 1], width = 4 }
[[phase]]
name = "classifier"
epochs = 1
labelled_passes = 0
[[phase]]
name = "decoder"
epochs = 1
encoder = "frozen"
"#;

#[test]
fn a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before_and_ends_with_the_same_bits() {
    let Some(weights) =
        weights("a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before_and_ends_with_the_same_bits")
    else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let bench = Bench::new(CONFIG, &store(place.path()), weights);
    let [whole, damaged] = ["whole", "damaged"].map(|name| place.path().join(name));
    bench.train(&whole, &[]).unwrap();
    let stop = AtomicBool::new(true);
    bench.train_until(&damaged, &[], &stop).unwrap();
    bench.train_until(&damaged, &[], &stop).unwrap();
    let last = directory(&damaged, Which::Last).unwrap();
    assert!(last.ends_with("step-000002"));
    let file = last.join(WEIGHTS);
    std::fs::write(&file, &std::fs::read(&file).unwrap()[..10_000]).unwrap();
    bench.train(&damaged, &[]).unwrap();
    let (a, b) = (weights_of(&whole, WEIGHTS), weights_of(&damaged, WEIGHTS));
    for (name, t) in &a {
        assert!(t.equal(&b[name]), "`{name}` differs");
    }
}

#[test]
fn a_full_disk_leaves_the_old_checkpoint_and_another_configuration_is_refused() {
    let Some(weights) = weights("a_full_disk_leaves_the_old_checkpoint_and_another_configuration_is_refused") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let (store, run, config) = (store(place.path()), place.path().join("run"), place.path().join("config.toml"));
    std::fs::write(&config, CONFIG).unwrap();
    let text = |path: &Path| format!("'{}'", path.display());
    let sam_mix = |before: &str, arguments: &str| -> Output {
        let program = env!("CARGO_BIN_EXE_sam-mix");
        let places = format!("--store {} --run {} --weights {}", text(&store), text(&run), text(&weights));
        let line = format!("{before} exec '{program}' train {places} {arguments} --device cpu --threads 2");
        Command::new("bash").args(["-c", &line]).output().unwrap()
    };
    let message = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    // 22 MB for a file stand for the full disk: the weights need less, the decoder's moments more.
    let full = sam_mix("trap '' XFSZ; ulimit -f 22000;", &format!("--config {}", text(&config)));
    assert_eq!(full.status.code(), Some(1), "{}", message(&full));
    assert!(
        message(&full).contains("cannot save the checkpoint") && message(&full).contains("unharmed"),
        "{}",
        message(&full)
    );
    let kept = directory(&run, Which::Last).unwrap();
    assert!(kept.ends_with("step-000003"), "{}", kept.display());
    let left = std::fs::read_dir(run.join("checkpoints")).unwrap().count();
    assert_eq!(left, 2, "the checkpoint and `last`, nothing half-written");

    let other = place.path().join("other.toml");
    std::fs::write(&other, CONFIG.replace("batch_slices = 8", "batch_slices = 6")).unwrap();
    for (arguments, expected) in [
        ("--set seed=5".to_owned(), "`seed` is `0` in the run, asked for is `5`"),
        (format!("--config {}", text(&other)), "`classifier.batch_slices` is `8` in the run, asked for is `6`"),
        (format!("--config {} --set optimizer.clip_norm=1", text(&config)), "`optimizer.clip_norm` is `0.0`"),
    ] {
        let refused = sam_mix("", &format!("--resume {arguments}"));
        assert_eq!(refused.status.code(), Some(1));
        assert!(message(&refused).contains(expected), "{}", message(&refused));
    }
    let same = sam_mix("", &format!("--resume --config {} --set seed=0", text(&config)));
    assert!(same.status.success() && message(&same).contains("resuming after step 3"), "{}", message(&same));
}
