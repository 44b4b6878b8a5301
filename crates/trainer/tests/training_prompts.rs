//! Prompts of labelled slices in training.

use stage_api::{BoxPrompt, Mode, NamedTensor, Presence, PresenceClassifier};
use std::cell::Cell;
use tch::{Device, Kind, Tensor};
use trainer::config::{Config, PromptSource};
use trainer::plan::stream;
use trainer::prompts::training_prompt;

/// Counts its passes.
struct Counting(Cell<usize>);

impl PresenceClassifier for Counting {
    fn forward(&self, _: &Tensor, _: Mode) -> Presence {
        self.0.set(self.0.get() + 1);
        let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
        Presence { logit: ones(&[1]), cam: ones(&[1, 1, 8, 8]), map: None }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        Vec::new()
    }
}

#[test]
fn the_classifier_looks_only_where_its_map_is_used() {
    let text = "[sampling]\nlabelled = 1\n[[phase]]\nname = \"all\"\nepochs = 1\n";
    let config = Config::parse(text, &["training_prompts.whole_share=0.0".into()]).unwrap();
    let classifier = Counting(Cell::new(0));
    let image = Tensor::zeros([1, 1, 64, 64], (Kind::Float, Device::Cpu));
    let prompts = |truth, seed| {
        training_prompt(&config, PromptSource::Gt, &classifier, (&image, 64), truth, &mut stream(seed, "test"))
    };
    let truth = Some(BoxPrompt { x0: 20.0, y0: 20.0, x1: 40.0, y1: 40.0 });
    let with_mask = (0..100).filter(|&seed| prompts(truth, seed).cam_mask.is_some()).count();
    assert!((20..80).contains(&with_mask) && classifier.0.get() == with_mask, "{with_mask}");
    // An empty slice has no box of its own.
    assert!((0..100).all(|seed| prompts(None, seed).boxes.is_some()));
    assert_eq!(classifier.0.get(), with_mask + 100);
}
