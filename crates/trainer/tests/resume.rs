//! A stopped or killed and resumed run ends with the weights of an uninterrupted one, bit for bit.

mod common;

use common::{Bench, CONFIG, assert_same_end, store, weights};
use run_record::RunRecord;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};
use trainer::plan::stream;
use trainer::train::Outcome;

/// The resumed run has another number of loader threads, which must not matter either.
#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let Some(weights) = weights("a_resumed_run_ends_with_the_same_bits") else { return };
    let place = tempfile::tempdir().unwrap();
    let store = store(place.path());
    let (whole, stopped) = (place.path().join("whole"), place.path().join("stopped"));
    let mut bench = Bench::new(CONFIG, &store, weights);
    bench.loader_threads = 1;
    bench.train(&whole, &[]).unwrap();
    bench.loader_threads = 2;
    // Stopped after each of its first steps, in both phases.
    let mut stops = 0;
    while stops < 5 && bench.train_until(&stopped, &[], &AtomicBool::new(true)).unwrap().1 == Outcome::Interrupted {
        stops += 1;
    }
    assert!(stops >= 3, "the run has too few steps to be stopped: {stops}");
    bench.train(&stopped, &[]).unwrap();
    assert_same_end(&whole, &stopped, &["weights.safetensors", "optimizer.safetensors"]);
}

#[test]
fn a_run_goes_on_only_with_the_pretrained_weights_that_it_began_with() {
    let Some(weights) = weights("a_run_goes_on_only_with_the_pretrained_weights_that_it_began_with") else { return };
    let place = tempfile::tempdir().unwrap();
    let (store, run) = (store(place.path()), place.path().join("run"));
    // Another file's family is not known by its SHA-256.
    let family = ["segmenter.settings.family='lite-medsam'"];
    Bench::new(CONFIG, &store, weights.clone()).train_until(&run, &family, &AtomicBool::new(true)).unwrap();
    let read = |name: &str| std::fs::read(run.join(name)).unwrap();
    let before = ["run.json", "metrics.csv"].map(read);
    let began = RunRecord::load(&run).unwrap().weights_sha256.unwrap();
    // The same weights in another file: what differs is at its end, where no tensor is.
    let other = place.path().join("other.pth");
    let bytes = [&std::fs::read(weights).unwrap()[..], b"\0"].concat();
    std::fs::write(&other, &bytes).unwrap();
    let found = Sha256::digest(&bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let error = Bench::new(CONFIG, &store, other).train(&run, &family).unwrap_err().to_string();
    for part in [&began, &found, "other.pth", "--weights FILE"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(["run.json", "metrics.csv"].map(read), before, "something was written");
}

const KILLS: usize = 10;

#[test]
fn a_run_killed_at_ten_random_steps_ends_with_the_same_bits() {
    let Some(weights) = weights("a_run_killed_at_ten_random_steps_ends_with_the_same_bits") else { return };
    let place = tempfile::tempdir().unwrap();
    let (store, config) = (store(place.path()), place.path().join("config.toml"));
    // A moving average and a schedule, and phases whose steps are quick, so that ten kills fall into the run.
    let (head, phases) = CONFIG.split_once("[[phase]]").unwrap();
    let quick = "[optimizer]\nema_decay = 0.9\nwarmup_steps = 3\naccumulate_steps = 2\n\
        [[phase]]\nname = \"classifier\"\nepochs = 12\nlabelled_passes = 0\n";
    let phases = phases.replacen("epochs = 1", "epochs = 4", 1);
    std::fs::write(&config, format!("{head}{quick}[[phase]]{phases}")).unwrap();
    let start = |run: &Path| -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sam-mix"));
        command.arg("train").arg("--store").arg(&store).arg("--run").arg(run).arg("--weights").arg(&weights);
        if run.join("run.json").exists() {
            command.arg("--resume");
        } else {
            command.arg("--config").arg(&config);
        }
        command.args(["--device", "cpu", "--threads", "2"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    };
    let whole = place.path().join("whole");
    assert!(start(&whole).wait().unwrap().success());
    let steps = logged_steps(&whole);
    assert!(steps > 40, "{steps} steps");

    let killed = place.path().join("killed");
    // Where in a step the kill falls is chance in any case.
    let mut at = rand::seq::index::sample(&mut stream(0, "kills"), steps - 1, KILLS).into_vec();
    at.sort_unstable();
    println!("killed at steps {at:?} of {steps}");
    for step in at {
        let before = modified(&killed);
        let mut run = start(&killed);
        let begun = Instant::now();
        // The log of the run before is cut back to its checkpoint first.
        while modified(&killed) == before || logged_steps(&killed) < step + 1 {
            assert!(begun.elapsed() < Duration::from_mins(5), "step {step} was not reached");
            assert!(run.try_wait().unwrap().is_none(), "the run ended before step {step}");
            std::thread::sleep(Duration::from_millis(1));
        }
        // SIGKILL.
        run.kill().unwrap();
        run.wait().unwrap();
    }
    assert!(start(&killed).wait().unwrap().success());
    assert_same_end(&whole, &killed, &["weights.safetensors", "optimizer.safetensors", "training.safetensors"]);
}

/// When the log was written last.
fn modified(run: &Path) -> Option<SystemTime> {
    run.join("metrics.csv").metadata().ok()?.modified().ok()
}

/// Steps in the log of a run that may not have begun.
fn logged_steps(run: &Path) -> usize {
    let log = std::fs::read_to_string(run.join("metrics.csv")).unwrap_or_default();
    log.lines().filter(|line| line.starts_with("step")).count()
}
