//! One measurement of inference, as a line of JSON: the counterpart of `benches/peer_sam.py`.
//!
//! ```text
//! cargo run --release -p sam-segmenter --example sam_infer -- lite {decoder,volume} --weights FILE
//!     [--prompts 32] [--masks single|three] [--slices 100] [--batch 1] [--rank 8] [--runs 3] [--threads 2]
//! ```
//!
//! `decoder`: one image with so many boxes, prompt encoder and mask decoder. `volume`: each slice of 256² embedded, one box
//! decoded, thresholded, so many slices at once. The first run is not counted. `cpu_s` is what the processors spent on a run,
//! which other work on the machine changes less than the time that it took.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use sam_segmenter::{Family, SamSegmenter, SegmenterSettings};
use stage_api::{Adapters, BoxPrompt, Embedding, MaskChoice, Mode, Prompts, Segmenter};
use tch::{Device, Kind, Tensor};

const USAGE: &str = "usage: sam_infer lite {decoder,volume} --weights FILE [--prompts N] [--masks single|three] [--slices N] \
                     [--batch N] [--rank N] [--runs N] [--threads N]";

fn main() {
    let mut arguments = std::env::args().skip(1);
    assert_eq!(arguments.next().as_deref(), Some("lite"), "{USAGE}");
    let work = arguments.next().expect(USAGE);
    let mut options = BTreeMap::new();
    while let Some(name) = arguments.next() {
        options.insert(name.strip_prefix("--").expect(USAGE).to_owned(), arguments.next().expect(USAGE));
    }
    let number = |name: &str, default: i64| options.get(name).map_or(default, |n| n.parse().expect("a whole number"));
    tch::set_num_threads(number("threads", 2) as i32);
    tch::manual_seed(0);
    let device = Device::cuda_if_available();
    let settings = SegmenterSettings {
        family: Some(Family::LiteMedSam),
        lora_rank: number("rank", 8) as usize,
        ..SegmenterSettings::default()
    };
    let weights = PathBuf::from(options.get("weights").expect("--weights FILE"));
    let model = SamSegmenter::load(&weights, &settings, device).unwrap_or_else(|error| panic!("{error}"));

    let runs = number("runs", 3) as usize;
    let (spent, what) = match work.as_str() {
        "decoder" => {
            let prompts = number("prompts", 32);
            let (masks, choice) = match options.get("masks").map_or("three", String::as_str) {
                "single" => ("single", MaskChoice::Single),
                _ => ("three", MaskChoice::Three),
            };
            let embedding = Embedding::new(Tensor::randn([1, 256, 64, 64], (Kind::Float, device)) * 0.1, [256, 256]);
            let prompts = boxes(prompts as usize);
            let spent = repeat(runs, || drop(tch::no_grad(|| model.decode(&embedding, &prompts, choice)).logits.max()));
            (spent, format!("\"prompts\": {}, \"masks\": \"{masks}\"", number("prompts", 32)))
        }
        "volume" => {
            let (slices, batch) = (number("slices", 100), number("batch", 1));
            let volume = Tensor::rand([slices, 1, 256, 256], (Kind::Float, device));
            let spent = repeat(runs, || volume.split(batch, 0).iter().for_each(|slices| infer(&model, slices)));
            (spent, format!("\"slices\": {slices}, \"at_once\": {batch}"))
        }
        other => panic!("no work '{other}': expected decoder or volume"),
    };
    let [[median, least], [cpu, _]] = spent;
    println!(
        "{{\"model\": \"lite\", \"work\": \"{work}\", {what}, \"threads\": {}, \"median_s\": {median:.3}, \"least_s\": \
         {least:.3}, \"cpu_s\": {cpu:.3}, \"peak_mib\": {}}}",
        tch::get_num_threads(),
        peak_mib()
    );
}

fn infer(model: &SamSegmenter, slices: &Tensor) {
    let embedding = model.embed(&model.features(slices), Adapters::On, Mode::Eval);
    let at = BoxPrompt { x0: 51.0, y0: 51.0, x1: 179.0, y1: 179.0 };
    let prompts = Prompts { boxes: Some(vec![at; slices.size()[0] as usize]), ..Prompts::default() };
    drop(tch::no_grad(|| model.decode(&embedding, &prompts, MaskChoice::Single)).logits.gt(0.0));
}

/// Boxes in one image, each somewhere else.
fn boxes(count: usize) -> Prompts {
    let at = |i: usize| {
        let (x0, y0) = ((37 * i % 101) as f32, (53 * i % 101) as f32);
        BoxPrompt { x0, y0, x1: x0 + 77.0, y1: y0 + 77.0 }
    };
    Prompts { slices: Some(vec![0; count]), boxes: Some((0..count).map(at).collect()), ..Prompts::default() }
}

/// Median and least of the seconds that passed, and of those of the processors.
fn repeat(runs: usize, work: impl Fn()) -> [[f64; 2]; 2] {
    let measured: Vec<[f64; 2]> = (0..=runs)
        .map(|_| {
            let (start, cpu) = (Instant::now(), processor_seconds());
            work();
            [start.elapsed().as_secs_f64(), processor_seconds() - cpu]
        })
        .skip(1)
        .collect();
    std::array::from_fn(|i| {
        let mut seconds: Vec<f64> = measured.iter().map(|m| m[i]).collect();
        seconds.sort_by(f64::total_cmp);
        [f64::midpoint(seconds[(seconds.len() - 1) / 2], seconds[seconds.len() / 2]), seconds[0]]
    })
}

/// What all threads of the process had so far, in hundredths; 0 where the system doesn't say.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = behind_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    fields.iter().sum::<f64>() / 100.0
}

/// The most memory that the process had so far, in MiB; 0 where the system doesn't say.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map_or(0, |kib: u64| kib / 1024)
}
