//! A full-size model against what the official code made of it, layer by layer: `cargo xtask parity` makes both files with
//! `tests/fixtures/make_parity_model.py`, and starts it. The exit code is 1 where a difference is too large.

#[path = "../tests/common/formula.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod formula;

use sam_segmenter::groups::ENCODER;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use sam_segmenter::{Family, SamSegmenter, SegmenterSettings};
use stage_api::{Adapters, BoxPrompt, Embedding, MaskChoice, Mode, Prompts, Segmenter};
use tch::{Cuda, Device, Kind, Tensor};

/// Compares a model with what the official code made of it.
#[derive(Parser)]
struct Arguments {
    /// The state dict
    weights: PathBuf,
    /// What the official code made of it
    expected: PathBuf,
    /// sam, medsam, mobile-sam or lite-medsam
    #[arg(long)]
    family: String,
}

/// Largest difference that is allowed, as a share of the tensor's range.
const TOLERANCE: f64 = 1e-4;
const GRADIENT_TOLERANCE: f64 = 1e-3;
/// What the script keeps of a large tensor.
const VALUES: usize = 20_000;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let expected = Tensor::read_safetensors(&arguments.expected)
        .with_context(|| format!("cannot read '{}'", arguments.expected.display()))?;
    let device = if Cuda::is_available() { Device::Cuda(0) } else { Device::Cpu };
    let mut comparison = Comparison { expected: expected.into_iter().collect(), ..Comparison::default() };
    let family: Family = serde_json::from_value(arguments.family.clone().into()).context("in --family")?;
    let side = comparison.input_side()?;
    let settings = SegmenterSettings { family: Some(family), input_size: Some(side), ..SegmenterSettings::default() };
    let model = SamSegmenter::load(&arguments.weights, &settings, device)?;
    println!(
        "{} at {side}² on {device:?}, differences as shares of a tensor's range\n",
        model.architecture().encoder.name()
    );
    println!("| tensor | difference | at most |\n| --- | ---: | ---: |");
    inference(&mut comparison, &model, side, device);
    step(&mut comparison, &model, side, device);
    comparison.left_over();
    if comparison.failed > 0 {
        println!("\n{} too large", comparison.failed);
        return Ok(ExitCode::FAILURE);
    }
    println!("\nall within their limits");
    Ok(ExitCode::SUCCESS)
}

/// Every layer, and the masks. `B = 0` in the adapters, so that they change nothing yet.
fn inference(comparison: &mut Comparison, model: &SamSegmenter, side: i64, device: Device) {
    let features = model.features_of_input(&input(side, device));
    for (name, output) in model.embed_by_layer(&features) {
        comparison.check(&format!("encoder.{name}"), &output, TOLERANCE);
    }
    let embedding = at_mask_size(model.embed(&features, Adapters::On, Mode::Eval), side, model);
    for (name, points) in [("box", false), ("box_points", true)] {
        for (count, choice) in [("single", MaskChoice::Single), ("three", MaskChoice::Three)] {
            let masks = tch::no_grad(|| model.decode(&embedding, &comparison.prompts(side, model, points), choice));
            comparison.check(&format!("{name}.{count}.logits"), &masks.logits, TOLERANCE);
            comparison.check_whole(&format!("{name}.{count}.scores"), &masks.scores, TOLERANCE);
        }
    }
}

/// Gradients of Dice loss; adapters by formula.
fn step(comparison: &mut Comparison, model: &SamSegmenter, side: i64, device: Device) {
    let tensors: BTreeMap<String, Tensor> =
        model.tensors().into_iter().filter(|t| t.group != ENCODER).map(|t| (t.name, t.tensor)).collect();
    for (name, tensor) in tensors.iter().filter(|(name, _)| name.contains("lora_")) {
        tch::no_grad(|| tensor.shallow_clone().copy_(&formula::tensor(name, &tensor.size())));
    }
    let features = model.features_of_input(&input(side, device));
    let embedding = at_mask_size(model.embed(&features, Adapters::On, Mode::Train), side, model);
    comparison.check("lora.embedding", &embedding.tensor, TOLERANCE);
    let logits = model.decode(&embedding, &comparison.prompts(side, model, false), MaskChoice::Single).logits;
    comparison.check("lora.logits", &logits, TOLERANCE);
    let (probability, target) = (logits.sigmoid(), disc(logits.size()[3]).to_device(device));
    let sum = |t: &Tensor| t.sum(Kind::Float);
    let loss: Tensor = 1.0 - (sum(&(&probability * &target)) * 2.0 + 1.0) / (sum(&probability) + sum(&target) + 1.0);
    comparison.check_whole("lora.loss", &loss.view([1]), TOLERANCE);
    loss.backward();
    embedding.backward().expect("the encoder's own backward pass");
    for name in comparison.names("lora.gradient.") {
        if let Some(tensor) = tensors.get(&name) {
            comparison.check(&format!("lora.gradient.{name}"), &tensor.grad(), GRADIENT_TOLERANCE);
        }
    }
}

fn input(side: i64, device: Device) -> Tensor {
    let count = (3 * side * side) as usize;
    Tensor::from_slice(&formula::values("input", count, 0.0, 1.7)).view([1, 3, side, side]).to_device(device)
}

/// As if of slices as large as the decoder's masks, so that these come out as the decoder gives them.
fn at_mask_size(embedding: Embedding, side: i64, model: &SamSegmenter) -> Embedding {
    let size = (side / scale(model)) as usize;
    Embedding { slice_size: [size, size], ..embedding }
}

/// Pixels of the input for each of the masks.
fn scale(model: &SamSegmenter) -> i64 {
    model.architecture().input_size / (4 * model.architecture().grid())
}

/// The script's target: radius an eighth of the side, around (0.4, 0.45).
fn disc(side: i64) -> Tensor {
    let n = side as f64;
    let values: Vec<f32> = (0..side * side)
        .map(|i| {
            let (x, y) = ((i % side) as f64 - 0.4 * n, (i / side) as f64 - 0.45 * n);
            f32::from(u8::from(x * x + y * y < (n / 8.0).powi(2)))
        })
        .collect();
    Tensor::from_slice(&values).view([1, 1, side, side])
}

/// What is expected, and how many differences were too large.
#[derive(Default)]
struct Comparison {
    expected: BTreeMap<String, Tensor>,
    /// What was compared.
    seen: BTreeSet<String>,
    failed: usize,
}

impl Comparison {
    /// From the box, whose left side is at 0.23 of it.
    fn input_side(&self) -> Result<i64> {
        match self.expected.get("box") {
            Some(corners) => Ok((corners.double_value(&[0, 0]) / 0.23).round() as i64),
            None => bail!("the file of expected values has no 'box': it is not from make_parity_model.py"),
        }
    }

    fn prompts(&self, side: i64, model: &SamSegmenter, points: bool) -> Prompts {
        debug_assert_eq!(side, model.architecture().input_size);
        let scale = scale(model) as f64;
        let corners = Vec::<f32>::try_from((&self.expected["box"] / scale).flatten(0, -1)).expect("four numbers");
        let boxes = vec![BoxPrompt { x0: corners[0], y0: corners[1], x1: corners[2], y1: corners[3] }];
        let points = points.then(|| (&self.expected["points"] / scale, self.expected["labels"].shallow_clone()));
        Prompts { boxes: Some(boxes), points, ..Prompts::default() }
    }

    /// The names of thinned tensors behind a prefix.
    fn names(&self, prefix: &str) -> Vec<String> {
        self.expected
            .keys()
            .filter_map(|key| Some(key.strip_prefix(prefix)?.strip_suffix(".range")?.to_owned()))
            .collect()
    }

    /// Compares the values that the script kept of a tensor; one that it didn't keep is said so.
    fn check(&mut self, name: &str, found: &Tensor, tolerance: f64) {
        let Some(range) = self.expected.get(&format!("{name}.range")) else {
            println!("| {name} | not among the expected: TOO LARGE | |");
            self.failed += 1;
            return;
        };
        let range = range.double_value(&[1]) - range.double_value(&[0]);
        let found = found.detach().to_device(Device::Cpu).contiguous().flatten(0, -1);
        let stride = (found.numel() / VALUES) | 1;
        self.compare(name, &found.slice(0, 0, None, stride as i64), range, tolerance);
    }

    /// Compares a small tensor that was kept whole.
    fn check_whole(&mut self, name: &str, found: &Tensor, tolerance: f64) {
        let scale = self.expected[name].abs().max().double_value(&[]);
        self.compare(name, &found.detach().to_device(Device::Cpu), scale, tolerance);
    }

    /// What was expected and never compared counts as too large. TinyViT's convolutions, which are one part here, have no
    /// outputs of their own.
    fn left_over(&mut self) {
        let inputs = ["box", "points", "labels"];
        let convolutions = |name: &str| {
            let tiny_vit = self.seen.iter().any(|seen| seen.starts_with("encoder.layers."));
            tiny_vit && (name == "encoder.patch_embed" || name.starts_with("encoder.layers.0.blocks."))
        };
        let names = self
            .expected
            .keys()
            .filter(|name| name.strip_suffix(".range").is_none() && !inputs.contains(&name.as_str()));
        let left: Vec<String> = names.filter(|n| !self.seen.contains(*n) && !convolutions(n)).cloned().collect();
        for name in &left {
            println!("| {name} | not computed here: TOO LARGE | |");
        }
        self.failed += left.len();
    }

    fn compare(&mut self, name: &str, found: &Tensor, range: f64, tolerance: f64) {
        self.seen.insert(name.to_owned());
        let expected = &self.expected[name];
        let difference = if found.size() == expected.size() {
            (found - expected).abs().max().double_value(&[]) / range
        } else {
            f64::INFINITY
        };
        // A difference that is not a number is too large as well.
        let fits = difference <= tolerance;
        self.failed += usize::from(!fits);
        println!("| {name} | {difference:.1e}{} | {tolerance:.0e} |", if fits { "" } else { " TOO LARGE" });
    }
}
