//! A volume's prediction, on stages whose results can be drawn by hand: the classifier's map is the slice itself, the decoder's
//! mask is what of the slice is in the box.

use cam_classifier::{EmptyMap, PromptSettings};
use predictor::{NotANumber, PredictionConfig, Predictor, VolumeConfig, VolumePrediction, VolumeSlices};
use stage_api::{
    Adapters, ClassifierInput, Embedding, Features, Group, MaskChoice, Masks, Mode, NamedTensor, Presence,
    PresenceClassifier, PromptKinds, Prompts, Segmenter,
};
use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind, Tensor};

const SIZE: usize = 24;

/// Sees the target with the logit 10 × the brightest pixel − 5: 1 is surely there (0.993), 0.4 hardly (0.27).
struct Bright(ClassifierInput);

impl PresenceClassifier for Bright {
    fn input(&self) -> ClassifierInput {
        self.0
    }

    fn forward(&self, input: &Tensor, _: Mode) -> Presence {
        Presence { logit: input.amax([1, 2, 3], false) * 10.0 - 5.0, cam: input.shallow_clone(), map: None }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        Vec::new()
    }
}

/// Everything above 0 that is in the box; counts what it encodes.
#[derive(Default)]
struct Cutter {
    is_adapted: bool,
    features: Cell<i64>,
    pretrained: Cell<i64>,
    adapted: Cell<i64>,
    /// Whether its masks are NaN.
    is_damaged: bool,
}

impl Segmenter for Cutter {
    fn prompts(&self) -> PromptKinds {
        PromptKinds::Box
    }

    fn features(&self, slices: &Tensor) -> Features {
        self.features.set(self.features.get() + slices.size()[0]);
        Features { tensor: slices.shallow_clone(), slice_size: [SIZE, SIZE] }
    }

    fn embed(&self, features: &Features, adapters: Adapters, _: Mode) -> Embedding {
        let count = if adapters == Adapters::On { &self.adapted } else { &self.pretrained };
        count.set(count.get() + features.tensor.size()[0]);
        Embedding::new(features.tensor.shallow_clone(), features.slice_size)
    }

    fn decode(&self, embedding: &Embedding, prompts: &Prompts, _: MaskChoice) -> Masks {
        let bounds = prompts.boxes.as_ref().unwrap()[0];
        let inside = Tensor::zeros([SIZE as i64, SIZE as i64], (Kind::Float, Device::Cpu));
        let part = |from: f32, to: f32| (from.round() as i64, (to - from).round() as i64 + 1);
        let (rows, columns) = (part(bounds.y0, bounds.y1), part(bounds.x0, bounds.x1));
        let _ = inside.narrow(0, rows.0, rows.1).narrow(1, columns.0, columns.1).fill_(1.0);
        let logits = &embedding.tensor * inside * if self.is_damaged { f64::NAN } else { 1.0 };
        Masks { logits, scores: Tensor::from_slice(&[0.9f32]).reshape([1, 1]), coarser: Vec::new() }
    }

    fn default_choice(&self) -> MaskChoice {
        MaskChoice::Single
    }

    fn is_adapted(&self) -> bool {
        self.is_adapted
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        Vec::new()
    }
}

/// A slice of squares: first row and column, side, brightness.
fn slice(squares: &[(usize, usize, usize, f32)]) -> Vec<f32> {
    let mut pixels = vec![0.0; SIZE * SIZE];
    for &(row, column, side, brightness) in squares {
        for y in row..row + side {
            pixels[y * SIZE + column..][..side].fill(brightness);
        }
    }
    pixels
}

fn mask(squares: &[(usize, usize, usize)]) -> Vec<u8> {
    let squares: Vec<_> = squares.iter().map(|&(row, column, side)| (row, column, side, 1.0)).collect();
    slice(&squares).into_iter().map(|v| u8::from(v > 0.0)).collect()
}

struct Bench {
    classifier: Bright,
    segmenter: Cutter,
    prediction: PredictionConfig,
    /// Whether the pretrained embeddings are known before.
    known: bool,
}

impl Bench {
    fn new(input: ClassifierInput, volume: VolumeConfig) -> Self {
        let prediction = PredictionConfig { refinements: 1, volume, ..PredictionConfig::default() };
        Self { classifier: Bright(input), segmenter: Cutter::default(), prediction, known: false }
    }

    fn predictor(&self) -> Predictor<'_> {
        static PROMPT: PromptSettings = PromptSettings { threshold: 0.2, absolute: true, empty: EmptyMap::CentralHalf };
        let Self { classifier, segmenter, prediction, .. } = self;
        Predictor { classifier, segmenter, prompt: &PROMPT, prediction }
    }

    fn volume(&self, slices: &[Vec<f32>], stop: bool) -> Option<VolumePrediction> {
        self.volume_of_numbers(slices, stop).unwrap()
    }

    fn volume_of_numbers(&self, slices: &[Vec<f32>], stop: bool) -> Result<Option<VolumePrediction>, NotANumber> {
        let chunk = |range: std::ops::Range<usize>| {
            let part = slices[range].concat();
            Tensor::from_slice(&part).reshape([-1, 1, SIZE as i64, SIZE as i64])
        };
        let mut seen = Vec::new();
        let known = |i: usize| Embedding::new(chunk(i..i + 1), [SIZE, SIZE]);
        let pretrained = self.known.then_some(&known as &dyn Fn(usize) -> Embedding);
        let volume = VolumeSlices { count: slices.len(), size: SIZE, slices: &chunk, pretrained };
        let found = self.predictor().volume(&volume, &AtomicBool::new(stop), &mut |i, _, _| seen.push(i));
        assert!(stop || found.is_err() || seen == (0..slices.len()).collect::<Vec<_>>(), "{seen:?}");
        found
    }
}

fn masks(found: &VolumePrediction) -> Vec<&[u8]> {
    found.slices.iter().map(|slice| slice.mask.as_slice()).collect()
}

fn six_slices() -> Vec<Vec<f32>> {
    vec![
        slice(&[]),
        slice(&[(5, 5, 6, 1.0)]),
        slice(&[(5, 5, 6, 1.0), (15, 15, 3, 1.0)]),
        slice(&[(6, 5, 6, 0.4)]),
        slice(&[(6, 6, 6, 0.9)]),
        slice(&[(1, 18, 4, 0.8)]),
    ]
}

#[test]
fn without_rules_a_volume_is_its_slices() {
    for input in [ClassifierInput::Slices, ClassifierInput::Embedding] {
        let bench = Bench::new(input, VolumeConfig::default());
        let found = bench.volume(&six_slices(), false).unwrap();
        for (i, values) in six_slices().iter().enumerate() {
            let image = Tensor::from_slice(values).reshape([1, 1, SIZE as i64, SIZE as i64]);
            let predictor = bench.predictor();
            let classification = predictor.classify(&image, SIZE).unwrap().remove(0);
            let alone = if classification.present {
                predictor.segment(&Embedding::new(image, [SIZE, SIZE]), &classification.prompt)
            } else {
                vec![0; SIZE * SIZE]
            };
            assert_eq!(found.slices[i].mask, alone, "slice {i}");
            assert_eq!(found.slices[i].classification.probability, classification.probability, "slice {i}");
        }
        assert_eq!(found.steps.iter().map(|step| step.name).collect::<Vec<_>>(), ["CAM box", "refined"]);
        // The first is empty, the fourth is hardly there.
        assert_eq!(masks(&found)[2], mask(&[(5, 5, 6)]));
        assert!([0, 3].iter().all(|&i| found.slices[i].mask == mask(&[])));
    }
}

#[test]
fn each_slice_is_encoded_once_and_only_where_it_is_looked_into() {
    let counts = |input, is_adapted| {
        let mut bench = Bench::new(input, VolumeConfig::default());
        bench.segmenter.is_adapted = is_adapted;
        bench.volume(&six_slices(), false).unwrap();
        let Cutter { features, pretrained, adapted, .. } = &bench.segmenter;
        [features.get(), pretrained.get(), adapted.get()]
    };
    // Four of six slices are called present.
    assert_eq!(counts(ClassifierInput::Slices, true), [4, 0, 4]);
    assert_eq!(counts(ClassifierInput::Slices, false), [4, 4, 0], "both embeddings are one");
    assert_eq!(counts(ClassifierInput::Embedding, true), [6, 6, 4]);
    assert_eq!(counts(ClassifierInput::Embedding, false), [6, 6, 0]);
}

#[test]
fn known_embeddings_are_not_made_again_and_give_the_same_masks() {
    for (input, is_adapted, counts) in [
        (ClassifierInput::Slices, true, [4, 0, 4]),
        (ClassifierInput::Slices, false, [0, 0, 0]),
        (ClassifierInput::Embedding, true, [4, 0, 4]),
        (ClassifierInput::Embedding, false, [0, 0, 0]),
    ] {
        let found = |known| {
            let mut bench = Bench { known, ..Bench::new(input, VolumeConfig::default()) };
            bench.segmenter.is_adapted = is_adapted;
            let found = bench.volume(&six_slices(), false).unwrap();
            let Cutter { features, pretrained, adapted, .. } = &bench.segmenter;
            (found, [features.get(), pretrained.get(), adapted.get()])
        };
        let ((made, _), (known, made_again)) = (found(false), found(true));
        assert_eq!(masks(&known), masks(&made));
        assert_eq!(made_again, counts);
    }
}

#[test]
fn a_stopped_volume_is_none() {
    assert!(Bench::new(ClassifierInput::Slices, VolumeConfig::default()).volume(&six_slices(), true).is_none());
}

#[test]
fn a_presence_or_a_mask_that_is_nan_is_an_error_that_names_slice_and_cause() {
    let message = |bench: &Bench, slices: &[Vec<f32>]| {
        let error = bench.volume_of_numbers(slices, false).unwrap_err();
        (error.slice, error.to_string())
    };
    // Slices go to the classifier four at a time.
    for at in [0, 4, 5] {
        let mut slices = six_slices();
        slices[at][100] = f32::NAN;
        for input in [ClassifierInput::Slices, ClassifierInput::Embedding] {
            let (slice, text) = message(&Bench::new(input, VolumeConfig::default()), &slices);
            assert_eq!(slice, at);
            assert!(
                text.contains("the classifier's presence is not a number (NaN): its input is not finite"),
                "{text}"
            );
        }
    }
    let mut bench = Bench::new(ClassifierInput::Slices, VolumeConfig::default());
    bench.segmenter.is_damaged = true;
    let (slice, text) = message(&bench, &six_slices());
    assert_eq!(slice, 1, "the first that is called present");
    assert!(
        text.contains("the segmenter's mask is not a number (NaN): its input and the weights are finite"),
        "{text}"
    );
}

/// As a checkpoint is after updates that were no numbers.
struct Damaged;

impl PresenceClassifier for Damaged {
    fn forward(&self, input: &Tensor, mode: Mode) -> Presence {
        let presence = Bright(ClassifierInput::Slices).forward(input, mode);
        Presence { logit: presence.logit * f64::NAN, ..presence }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let group = Group::trainable("classifier");
        let named = |name: &str, value: f32| NamedTensor {
            name: name.to_owned(),
            group,
            tensor: Tensor::from_slice(&[1.0, value]),
        };
        vec![named("head.weight", 2.0), named("head.bias", f32::NAN)]
    }
}

#[test]
fn weights_that_are_nan_are_named_as_the_cause() {
    let bench = Bench::new(ClassifierInput::Slices, VolumeConfig::default());
    let predictor = Predictor { classifier: &Damaged, ..bench.predictor() };
    let image = Tensor::zeros([1, 1, SIZE as i64, SIZE as i64], (Kind::Float, Device::Cpu));
    let text = predictor.classify(&image, SIZE).unwrap_err().to_string();
    assert!(text.contains("the weights 'head.bias' are not finite; take another checkpoint"), "{text}");
}

#[test]
fn of_the_volume_the_largest_component_is_kept() {
    let rules = VolumeConfig { largest_component: true, ..VolumeConfig::default() };
    let found = Bench::new(ClassifierInput::Slices, rules).volume(&six_slices(), false).unwrap();
    // Slice 3 is called empty and parts the others: 2 × 36 pixels against 36 and 16.
    let expected = [mask(&[]), mask(&[(5, 5, 6)]), mask(&[(5, 5, 6)]), mask(&[]), mask(&[]), mask(&[])];
    assert_eq!(masks(&found), expected);
    assert_eq!(found.steps.last().unwrap().name, "largest component");
}

#[test]
fn a_mask_goes_on_as_far_as_the_map_speaks_for_it() {
    let found = |support| {
        let rules = VolumeConfig { propagate: true, support, ..VolumeConfig::default() };
        Bench::new(ClassifierInput::Slices, rules).volume(&six_slices(), false).unwrap()
    };
    // Slice 3 was called empty: its map is 0.4. Slice 5 has 16 pixels of something else.
    let (none, first) = (mask(&[]), mask(&[(5, 5, 6)]));
    let far = [none.clone(), first.clone(), first.clone(), mask(&[(6, 5, 6)]), mask(&[(6, 6, 6)]), none.clone()];
    assert_eq!(masks(&found(0.3)), far);
    assert_eq!(masks(&found(0.5)), [none.clone(), first.clone(), first, none.clone(), none.clone(), none]);
}

#[test]
fn a_slice_that_is_sure_of_something_else_loses_against_a_volume() {
    // The first slice is the surest.
    let slices = [
        slice(&[(2, 15, 5, 1.0)]),
        slice(&[]),
        slice(&[(5, 5, 6, 0.9)]),
        slice(&[(5, 5, 7, 0.9)]),
        slice(&[(6, 5, 6, 0.9)]),
    ];
    let rules = VolumeConfig { propagate: true, ..VolumeConfig::default() };
    let found = Bench::new(ClassifierInput::Slices, rules).volume(&slices, false).unwrap();
    assert_eq!(masks(&found), [mask(&[]), mask(&[]), mask(&[(5, 5, 6)]), mask(&[(5, 5, 7)]), mask(&[(6, 5, 6)])]);
}

#[test]
fn masks_that_meet_those_of_a_surer_slice_are_no_rivals() {
    // The second object is in more slices and agrees better with the maps, but its way goes on through the first one.
    let second = (14, 13, 9, 0.9);
    let mut slices = vec![slice(&[(2, 2, 6, 1.0)]), slice(&[(2, 2, 13, 1.0)]), slice(&[(2, 2, 6, 0.6), second])];
    slices.extend([slice(&[second]), slice(&[second]), slice(&[second])]);
    let rules = VolumeConfig { propagate: true, support: 0.8, ..VolumeConfig::default() };
    let found = Bench::new(ClassifierInput::Slices, rules).volume(&slices, false).unwrap();
    // Of the second slice what is in the first one's box, 5 px larger.
    assert_eq!(masks(&found)[..3], [mask(&[(2, 2, 6)]), mask(&[(2, 2, 11)]), mask(&[])]);
}

#[test]
fn a_neighbour_speaks_against_a_larger_wrong_part() {
    let slices = [slice(&[(5, 5, 6, 1.0)]), slice(&[(5, 5, 6, 1.0), (14, 14, 7, 1.0)]), slice(&[(4, 5, 7, 1.0)])];
    let rules = VolumeConfig { propagate: true, margin_px: 3.0, ..VolumeConfig::default() };
    let found = Bench::new(ClassifierInput::Slices, rules).volume(&slices, false).unwrap();
    // By itself the slice takes the larger part.
    assert_eq!(found.steps[0].masks[1], mask(&[(14, 14, 7)]));
    assert_eq!(masks(&found), [mask(&[(5, 5, 6)]), mask(&[(5, 5, 6)]), mask(&[(4, 5, 7)])]);
}
