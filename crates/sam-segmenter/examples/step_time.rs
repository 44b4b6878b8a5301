//! Times the parts of an inference and of a training step: `cargo run --release -p sam-segmenter --example step_time
//! WEIGHTS [THREADS]`. Medians of five runs, in milliseconds.

use std::path::PathBuf;
use std::time::Instant;

use sam_segmenter::{SamSegmenter, SegmenterSettings};
use stage_api::{Adapters, BoxPrompt, MaskChoice, Mode, PromptedSegmenter, Prompts};
use tch::{Device, Kind, Tensor};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let weights = PathBuf::from(arguments.next().expect("usage: step_time WEIGHTS [THREADS]"));
    tch::set_num_threads(arguments.next().map_or(2, |n| n.parse().expect("a number of threads")));
    let device = Device::cuda_if_available();
    let model = SamSegmenter::load(&weights, &SegmenterSettings::default(), device).expect("LiteMedSAM weights");
    for batch in [1, 4] {
        let slices = Tensor::rand([batch, 1, 256, 256], (Kind::Float, device));
        let boxes = vec![BoxPrompt { x0: 51.0, y0: 51.0, x1: 179.0, y1: 179.0 }; batch as usize];
        let prompts = Prompts { boxes: Some(boxes), ..Prompts::default() };
        let target = Tensor::rand([batch, 1, 256, 256], (Kind::Float, device)).gt(0.5).to_kind(Kind::Float);
        let features = model.features(&slices);
        let embedding = model.embed(&features, Adapters::On, Mode::Eval);
        time(batch, "features", || drop(model.features(&slices)));
        time(batch, "embed (evaluation)", || drop(model.embed(&features, Adapters::On, Mode::Eval)));
        time(batch, "decode (evaluation)", || {
            tch::no_grad(|| drop(model.decode(&embedding, &prompts, MaskChoice::Single)));
        });
        time(batch, "train from features: embed, decode, backward", || {
            let embedding = model.embed(&features, Adapters::On, Mode::Train);
            let logits = model.decode(&embedding, &prompts, MaskChoice::Single).logits;
            logits.binary_cross_entropy_with_logits::<Tensor>(&target, None, None, tch::Reduction::Mean).backward();
        });
        time(batch, "train decoder alone: decode, backward", || {
            let logits = model.decode(&embedding, &prompts, MaskChoice::Single).logits;
            logits.binary_cross_entropy_with_logits::<Tensor>(&target, None, None, tch::Reduction::Mean).backward();
        });
    }
}

fn time(batch: i64, name: &str, work: impl Fn()) {
    let mut milliseconds: Vec<f64> = (0..6)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .skip(1)
        .collect();
    milliseconds.sort_by(f64::total_cmp);
    println!("batch {batch}: {name}: {:.0} ms (least {:.0})", milliseconds[2], milliseconds[0]);
}
