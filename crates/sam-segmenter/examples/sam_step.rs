//! One measurement of the encoder or of a training step, as a line of JSON: the counterpart of a script that does the same
//! with the official code in PyTorch, so that both can be compared in one run.
//!
//! ```text
//! cargo run --release -p sam-segmenter --example sam_step -- {vit_b,lite} {encode,train} --weights FILE
//!     [--size 1024] [--batch 1] [--runs 3] [--threads 2] [--memory keep|recompute] [--precision f32|bf16]
//! ```
//!
//! `encode` is the whole image encoder. `train` is that, the decoder with one box for each image, Dice and cross-entropy,
//! the backward pass to adapters of rank 8 on queries and values and to the decoder, and an AdamW update of both. The time is the
//! median of the runs behind the first; the memory is the most that the process had.

use sam_segmenter::groups::{DECODER, LORA};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use sam_segmenter::{Family, Memory, SamSegmenter, SegmenterSettings};
use stage_api::{Adapters, BoxPrompt, Embedding, MaskChoice, Mode, Precision, Prompts, Segmenter};
use tch::{Device, Kind, Reduction, Tensor};

fn main() {
    let arguments = Arguments::parse();
    tch::set_num_threads(arguments.number("threads", 2) as i32);
    tch::manual_seed(0);
    let device = Device::cuda_if_available();
    let model = arguments.model(device);
    let (size, batch) = (model.architecture().input_size, arguments.number("batch", 1));
    // The peer leaves the prompt encoder as it is.
    let trained: Vec<Tensor> = model
        .tensors()
        .into_iter()
        .filter_map(|t| match t.group {
            LORA | DECODER => Some(t.tensor),
            _ => {
                let _ = t.tensor.set_requires_grad(false);
                None
            }
        })
        .collect();
    let mut optimizer = AdamW::new(trained);
    let input = Tensor::rand([batch, 3, size, size], (Kind::Float, device));
    let mut work: Box<dyn FnMut()> = match arguments.work.as_str() {
        "encode" => Box::new(|| drop(embed(&model, &input, Mode::Eval))),
        "train" => {
            let target = Tensor::rand([batch, 1, 256, 256], (Kind::Float, device)).gt(0.5).to_kind(Kind::Float);
            let (model, input, optimizer) = (&model, &input, &mut optimizer);
            Box::new(move || {
                let embedding = embed(model, input, Mode::Train);
                loss(model, &embedding, &target).backward();
                embedding.backward().expect("the encoder's own backward pass");
                optimizer.step();
            })
        }
        other => panic!("no work '{other}': expected encode or train"),
    };
    let runs = arguments.number("runs", 3) + 1;
    let mut seconds: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            // Waits for a GPU.
            let _ = Tensor::ones([1], (Kind::Float, device)).double_value(&[0]);
            start.elapsed().as_secs_f64()
        })
        .skip(1)
        .collect();
    drop(work);
    seconds.sort_by(f64::total_cmp);
    let median = f64::midpoint(seconds[(seconds.len() - 1) / 2], seconds[seconds.len() / 2]);
    let trainable: usize = optimizer.parameters.iter().map(|p| p.value.numel()).sum();
    println!(
        "{{\"model\": \"{}\", \"work\": \"{}\", \"size\": {size}, \"batch\": {batch}, \"threads\": {}, \"median_s\": {median:.3}, \
         \"peak_mib\": {}, \"trainable\": {trainable}}}",
        arguments.model,
        arguments.work,
        tch::get_num_threads(),
        peak_mib()
    );
}

/// The encoder's result, as of slices as large as the decoder's masks: so these come out as the decoder gives them.
fn embed(model: &SamSegmenter, input: &Tensor, mode: Mode) -> Embedding {
    let side = 4 * model.architecture().grid() as usize;
    let embedding = model.embed(&model.features_of_input(input), Adapters::On, mode);
    Embedding { slice_size: [side, side], ..embedding }
}

fn loss(model: &SamSegmenter, embedding: &Embedding, target: &Tensor) -> Tensor {
    let [low, high] = [0.2, 0.7].map(|share: f32| share * embedding.slice_size[0] as f32);
    let boxes = vec![BoxPrompt { x0: low, y0: low, x1: high, y1: high }; target.size()[0] as usize];
    let prompts = Prompts { boxes: Some(boxes), ..Prompts::default() };
    let logits = model.decode(embedding, &prompts, MaskChoice::Single).logits;
    let probability = logits.sigmoid();
    let overlap = (&probability * target).sum(Kind::Float);
    let dice = 1.0 - (overlap * 2.0 + 1.0) / (probability.sum(Kind::Float) + target.sum(Kind::Float) + 1.0);
    dice * 0.8 + logits.binary_cross_entropy_with_logits::<Tensor>(target, None, None, Reduction::Mean) * 0.2
}

/// PyTorch's AdamW with its default values and a learning rate of 1e-4.
struct AdamW {
    parameters: Vec<Parameter>,
    steps: i32,
}

struct Parameter {
    value: Tensor,
    moments: [Tensor; 2],
}

impl AdamW {
    fn new(values: Vec<Tensor>) -> Self {
        let with_moments = |value: Tensor| Parameter { moments: [value.zeros_like(), value.zeros_like()], value };
        Self { parameters: values.into_iter().map(with_moments).collect(), steps: 0 }
    }

    fn step(&mut self) {
        const RATE: f64 = 1e-4;
        self.steps += 1;
        let [correction, correction_2] = [0.9_f64, 0.999].map(|beta| 1.0 - beta.powi(self.steps));
        tch::no_grad(|| {
            for Parameter { value, moments: [first, second] } in &mut self.parameters {
                let gradient = value.grad();
                if !gradient.defined() {
                    continue;
                }
                *first = first.g_mul_scalar_(0.9) + &gradient * 0.1;
                *second = second.g_mul_scalar_(0.999) + gradient.square() * 0.001;
                let deviation = (&*second / correction_2).sqrt() + 1e-8;
                let _ = value.g_mul_scalar_(1.0 - RATE * 0.01);
                *value -= &*first / deviation * (RATE / correction);
                value.zero_grad();
            }
        });
    }
}

/// The most memory that the process had so far, in MiB; 0 where the system doesn't say.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map_or(0, |kib: u64| kib / 1024)
}

struct Arguments {
    model: String,
    work: String,
    options: BTreeMap<String, String>,
}

impl Arguments {
    fn parse() -> Self {
        const USAGE: &str = "usage: sam_step {vit_b,lite} {encode,train} --weights FILE [--size N] [--batch N] [--runs N] \
                             [--threads N] [--memory keep|recompute] [--precision f32|bf16]";
        let mut arguments = std::env::args().skip(1);
        let (model, work) = (arguments.next().expect(USAGE), arguments.next().expect(USAGE));
        let mut options = BTreeMap::new();
        while let Some(name) = arguments.next() {
            let name = name.strip_prefix("--").expect(USAGE).to_owned();
            options.insert(name, arguments.next().expect(USAGE));
        }
        Self { model, work, options }
    }

    fn number(&self, name: &str, default: i64) -> i64 {
        self.options.get(name).map_or(default, |value| value.parse().expect("a whole number"))
    }

    fn model(&self, device: Device) -> SamSegmenter {
        let text = |name: &str, default: &str| self.options.get(name).map_or(default, String::as_str).to_owned();
        let (family, size) = match self.model.as_str() {
            "vit_b" => (Family::Sam, 1024),
            "lite" => (Family::LiteMedSam, 256),
            other => panic!("no model '{other}': expected vit_b or lite"),
        };
        let settings = SegmenterSettings {
            family: Some(family),
            input_size: Some(self.number("size", size)),
            memory: match text("memory", "keep").as_str() {
                "recompute" => Memory::Recompute,
                _ => Memory::Keep,
            },
            precision: match text("precision", "f32").as_str() {
                "bf16" => Precision::Bf16,
                _ => Precision::F32,
            },
            ..SegmenterSettings::default()
        };
        let weights = PathBuf::from(self.options.get("weights").expect("--weights FILE"));
        SamSegmenter::load(&weights, &settings, device).unwrap_or_else(|error| panic!("{error}"))
    }
}
