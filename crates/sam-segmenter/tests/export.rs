//! What is written of a model gives the same masks again: merged weights, adapters, TorchScript.
//!
//! Weights are by formula, which `fixtures/check_export.py` repeats: there the official code reads what was written.

mod common;
#[path = "common/formula.rs"]
mod formula;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use common::{assert_close, model, named};
use formula::Shapes;
use sam_segmenter::{
    DensePrompt, Family, LoraTarget, Notes, SamSegmenter, SegmenterSettings, TORCHSCRIPT_DECODER, TORCHSCRIPT_ENCODER,
};
use stage_api::{Adapters, BoxPrompt, Embedding, MaskChoice, Mode, Prompts, Segmenter};
use tch::{CModule, Device, IValue, Kind, Tensor};

/// Largest difference between a model and its copy.
const TOLERANCE: f64 = 1e-4;

/// A model on its official weights, at 256².
struct Case {
    name: &'static str,
    weights: PathBuf,
    shapes: Shapes,
    settings: SegmenterSettings,
    _folder: tempfile::TempDir,
}

impl Case {
    fn by_formula(name: &'static str, family: Family, shapes: Shapes) -> Self {
        tch::set_num_threads(1);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings =
            SegmenterSettings { family: Some(family), input_size: Some(256), ..SegmenterSettings::default() };
        Self { name, weights: formula::write_state(folder.path(), &shapes), shapes, settings, _folder: folder }
    }

    fn small_vit() -> Self {
        Self::by_formula("small ViT", Family::Sam, formula::small_vit_shapes(32, 2, 4, &[1, 3], 16))
    }

    fn mobile_sam() -> Self {
        Self::by_formula("MobileSAM", Family::MobileSam, formula::official_shapes("mobile_sam"))
    }

    /// The real weights, or those by formula where they are absent.
    fn lite_medsam() -> Self {
        let case = Self::by_formula("LiteMedSAM", Family::LiteMedSam, formula::official_shapes("lite_medsam"));
        match common::weights("LiteMedSAM's real weights: by formula instead") {
            Some(weights) => Self { weights, ..case },
            None => case,
        }
    }

    /// With adapters of rank 3 on every map, whose second factors are by formula, and a CAM vector that is not zero.
    fn trained(&self, settings: &SegmenterSettings) -> SamSegmenter {
        let settings = SegmenterSettings {
            lora_rank: 3,
            lora_targets: vec![LoraTarget::Q, LoraTarget::K, LoraTarget::V, LoraTarget::Proj, LoraTarget::Mlp],
            lora_alpha: Some(6.0),
            family: self.settings.family,
            input_size: self.settings.input_size,
            ..settings.clone()
        };
        let model = model(&self.weights, &settings);
        for (name, tensor) in named(&model).iter().filter(|(name, _)| name.contains("lora_") || name.contains("cam_")) {
            tch::no_grad(|| tensor.shallow_clone().copy_(&(formula::tensor(name, &tensor.size()) * 0.5)));
        }
        model
    }
}

fn cases() -> [Case; 3] {
    [Case::small_vit(), Case::mobile_sam(), Case::lite_medsam()]
}

/// In `[0, 1]`, as the encoder's input is large.
fn slice(model: &SamSegmenter, number: usize) -> Tensor {
    let size = model.architecture().input_size;
    let values = formula::values(&format!("slice.{number}"), (size * size) as usize, 0.5, 0.5);
    Tensor::from_slice(&values).view([1, 1, size, size])
}

/// The embedding of a slice as large as the decoder's masks, so that these come out as the decoder gives them.
fn embed(model: &SamSegmenter, slice: &Tensor, adapters: Adapters) -> Embedding {
    let side = 4 * model.architecture().grid() as usize;
    let embedding = model.embed(&model.features(slice), adapters, Mode::Eval);
    Embedding { slice_size: [side, side], ..embedding }
}

/// Corners in pixels of the input, `[P, 4]`.
fn boxes(model: &SamSegmenter, count: i64) -> Tensor {
    let size = model.architecture().input_size as f64;
    let corner = |at: &str, offset| {
        let values = formula::values(at, 2 * count as usize, offset * size, 0.2 * size);
        Tensor::from_slice(&values).view([count, 2])
    };
    Tensor::cat(&[corner("first corner", 0.25), corner("last corner", 0.75)], 1)
}

/// Discs of ones, `[P, 1, S, S]`.
fn masks(model: &SamSegmenter, count: i64) -> Tensor {
    let size = model.architecture().input_size;
    let x = Tensor::arange(size, (Kind::Float, Device::Cpu)) / size as f64;
    let squared = |offset: f64| (&x - offset).square();
    let disc = |i: i64| {
        let centre = 0.3 + 0.1 * i as f64;
        (squared(centre).unsqueeze(0) + squared(0.5).unsqueeze(1)).lt(0.04).to_kind(Kind::Float)
    };
    Tensor::stack(&(0..count).map(disc).collect::<Vec<_>>(), 0).unsqueeze(1)
}

/// Logits and scores for some boxes on one slice.
fn decode(model: &SamSegmenter, embedding: &Embedding, boxes: &Tensor, cam_mask: Option<Tensor>) -> [Tensor; 2] {
    let scale = embedding.slice_size[0] as f64 / model.architecture().input_size as f64;
    let corners = Vec::<f32>::try_from((boxes * scale).flatten(0, -1)).expect("numbers");
    let prompts = Prompts {
        slices: Some(vec![0; corners.len() / 4]),
        boxes: Some(corners.chunks(4).map(|c| BoxPrompt { x0: c[0], y0: c[1], x1: c[2], y1: c[3] }).collect()),
        cam_mask,
        ..Prompts::default()
    };
    let masks = tch::no_grad(|| model.decode(embedding, &prompts, model.default_choice()));
    [masks.logits, masks.scores]
}

fn assert_same_masks(name: &str, found: &SamSegmenter, expected: &SamSegmenter) {
    let slice = slice(expected, 0);
    let [found_embedding, embedding] = [found, expected].map(|model| embed(model, &slice, Adapters::On));
    assert_close(&format!("{name}: embedding"), &found_embedding.tensor, &embedding.tensor, TOLERANCE);
    let boxes = boxes(expected, 2);
    let [found, expected] =
        [(found, found_embedding), (expected, embedding)].map(|(model, e)| decode(model, &e, &boxes, None));
    assert_close(&format!("{name}: logits"), &found[0], &expected[0], TOLERANCE);
    assert_close(&format!("{name}: scores"), &found[1], &expected[1], TOLERANCE);
}

#[test]
fn merged_weights_have_the_official_keys_and_give_the_same_masks() {
    for case in cases() {
        let trained = case.trained(&case.settings);
        let pretrained = embed(&trained, &slice(&trained, 0), Adapters::Off).tensor;
        let adapted = embed(&trained, &slice(&trained, 0), Adapters::On).tensor;
        let effect = ((adapted - &pretrained).abs().max() / pretrained.abs().max()).double_value(&[]);
        assert!(effect > 0.01, "{}: the adapters have an effect of {effect}", case.name);

        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("merged.safetensors");
        trained.save_merged(&path, &Notes::new()).expect("the merged weights are written");
        let written: BTreeMap<String, Tensor> =
            Tensor::read_safetensors(&path).expect("safetensors").into_iter().collect();
        let found: Shapes = written.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        assert_eq!(found, case.shapes, "{}", case.name);
        let counts = written.iter().filter(|(name, _)| name.ends_with("num_batches_tracked"));
        assert!(counts.into_iter().all(|(_, tensor)| tensor.kind() == Kind::Int64));

        // The file says which family it is, and for which input.
        let settings = SegmenterSettings { lora_rank: 0, ..SegmenterSettings::default() };
        assert_same_masks(case.name, &model(&path, &settings), &trained);
    }
}

#[test]
fn weights_that_were_only_read_are_written_bit_for_bit() {
    for case in cases() {
        let settings = SegmenterSettings { lora_rank: 0, input_size: None, ..case.settings.clone() };
        let read = model(&case.weights, &settings);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let paths = ["first", "second"].map(|name| folder.path().join(name));
        read.save_merged(&paths[0], &Notes::new()).expect("it is written");
        let again = model(&paths[0], &SegmenterSettings { family: None, ..settings });
        again.save_merged(&paths[1], &Notes::new()).expect("it is written");
        let [first, second] = paths.map(|path| std::fs::read(path).expect("it is there"));
        assert_eq!(first, second, "{}", case.name);
        let own = named(&read);
        for (name, tensor) in named(&again) {
            assert_eq!(tensor, own[&name], "{}: {name}", case.name);
        }
    }
}

#[test]
fn merged_weights_of_another_input_size_are_for_that_size() {
    let shapes = formula::small_vit_shapes(48, 2, 4, &[1, 3], 32);
    let case = Case::by_formula("small ViT for 512²", Family::MedSam, shapes);
    let trained = case.trained(&case.settings);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("merged.safetensors");
    trained.save_merged(&path, &Notes::new()).expect("the merged weights are written");
    // Nothing is stated: size and family are the file's own.
    let merged = model(&path, &SegmenterSettings { lora_rank: 0, ..SegmenterSettings::default() });
    assert_eq!((merged.architecture().input_size, merged.architecture().family), (256, Family::MedSam));
    assert_same_masks(case.name, &merged, &trained);
}

#[test]
fn adapters_alone_make_the_same_model_of_the_same_weights() {
    let case = Case::small_vit();
    let trained = case.trained(&case.settings);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("adapters.safetensors");
    trained.save_adapters(&path, &Notes::new()).expect("the adapters are written");
    let settings = trained.settings().clone();
    let mut other = model(&case.weights, &SegmenterSettings { seed: 7, ..settings.clone() });
    other.load_adapters(&path).expect("they fit");
    assert_same_masks("adapters", &other, &trained);

    let refusal = |weights: &Path, settings: SegmenterSettings| {
        let mut other = model(weights, &settings);
        let before: BTreeMap<String, Tensor> = named(&other).into_iter().map(|(n, t)| (n, t.copy())).collect();
        let refusal = other.load_adapters(&path).expect_err("they don't fit").to_string();
        assert!(named(&other).iter().all(|(name, tensor)| *tensor == before[name]), "nothing is changed");
        refusal
    };
    let with = |change: &dyn Fn(&mut SegmenterSettings)| {
        let mut settings = settings.clone();
        change(&mut settings);
        refusal(&case.weights, settings)
    };
    assert!(with(&|s| s.lora_rank = 4).contains("its adapters' rank is 3, expected 4"));
    assert!(with(&|s| s.lora_alpha = None).contains("its adapters' alpha is 6, expected none"));
    assert!(with(&|s| s.lora_targets.truncate(2)).contains("its adapters' targets is q,k,v,proj,mlp, expected q,k"));
    assert!(with(&|s| s.input_size = Some(512)).contains("its adapters' input size is 256, expected 512"));
    assert!(with(&|s| s.family = Some(Family::MedSam)).contains("its adapters' family is sam, expected medsam"));
    let merged = folder.path().join("merged.safetensors");
    trained.save_merged(&merged, &Notes::new()).expect("it is written");
    let base = refusal(&merged, settings.clone());
    assert!(base.contains("its adapters' base weights' SHA-256 is"), "{base}");
    let error = other.load_adapters(&merged).expect_err("these are no adapters").to_string();
    assert!(error.contains("no record of adapters"), "{error}");
    let none = model(&case.weights, &SegmenterSettings { lora_rank: 0, ..settings });
    let error = none.save_adapters(&path, &Notes::new()).expect_err("there are none").to_string();
    assert!(error.contains("`lora_rank` is 0"), "{error}");
}

/// A module from a folder, run.
fn run(path: &Path, inputs: &[&Tensor]) -> Vec<Tensor> {
    let module = CModule::load(path).expect("libtorch reads its own format");
    let inputs: Vec<IValue> = inputs.iter().map(|input| IValue::Tensor(input.shallow_clone())).collect();
    match tch::no_grad(|| module.forward_is(&inputs)).expect("it runs") {
        IValue::Tensor(tensor) => vec![tensor],
        IValue::Tuple(values) => values.into_iter().map(|v| Tensor::try_from(v).expect("a tensor")).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn torchscript_gives_the_masks_of_the_model_for_any_number_of_boxes() {
    let dense = [DensePrompt::Embedding, DensePrompt::MaskInput { strength: 6.0 }, DensePrompt::None];
    for (case, dense) in cases().iter().zip(dense) {
        let trained = case.trained(&SegmenterSettings { dense_prompt: dense, ..case.settings.clone() });
        let folder = tempfile::tempdir().expect("a temporary folder");
        trained.save_torchscript(folder.path(), &Notes::new()).expect("both modules are written");
        let [encoder, decoder] = [TORCHSCRIPT_ENCODER, TORCHSCRIPT_DECODER].map(|name| folder.path().join(name));
        for number in 0..2 {
            let slice = slice(&trained, number);
            let expected = embed(&trained, &slice, Adapters::On);
            let embedding = run(&encoder, &[&slice]).remove(0);
            assert_close(&format!("{}: embedding", case.name), &embedding, &expected.tensor, TOLERANCE);
            for count in [1, 4] {
                let (boxes, masks) = (boxes(&trained, count), masks(&trained, count));
                let check = |mask: Option<&Tensor>| {
                    let found = run(&decoder, &[&embedding, &boxes].into_iter().chain(mask).collect::<Vec<_>>());
                    let expected = decode(&trained, &expected, &boxes, mask.map(Tensor::shallow_clone));
                    assert_eq!(found.len(), 2);
                    assert_close(&format!("{}: logits", case.name), &found[0], &expected[0], TOLERANCE);
                    assert_close(&format!("{}: scores", case.name), &found[1], &expected[1], TOLERANCE);
                };
                match dense {
                    DensePrompt::Embedding => [None, Some(&masks)].into_iter().for_each(check),
                    DensePrompt::MaskInput { .. } => check(Some(&masks)),
                    DensePrompt::None => check(None),
                }
            }
        }
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
        assert_eq!(left.len(), 2, "no temporary files");
    }
}

#[test]
fn torchscript_describes_itself_and_is_bound_to_no_device() {
    let case = Case::small_vit();
    for device in formula::devices() {
        let settings = SegmenterSettings { masks: Some(MaskChoice::Single), ..case.settings.clone() };
        let model = SamSegmenter::load(&case.weights, &settings, device).expect("the weights fit");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let notes = Notes::from([("window_level".to_owned(), "40".to_owned())]);
        model.save_torchscript(folder.path(), &notes).expect("both modules are written");
        for (name, stem) in [(TORCHSCRIPT_ENCODER, "encoder"), (TORCHSCRIPT_DECODER, "decoder")] {
            let file = std::fs::File::open(folder.path().join(name)).expect("the file");
            let mut archive = zip::ZipArchive::new(file).expect("an archive");
            let mut text = |entry: &str| {
                let mut text = String::new();
                let mut entry = archive.by_name(&format!("{stem}/{entry}")).expect("an entry");
                entry.read_to_string(&mut text).expect("text");
                text
            };
            let description: BTreeMap<String, String> =
                serde_json::from_str(&text("extra/model.json")).expect("a description");
            for (key, value) in [
                ("family", "sam"),
                ("architecture", "ViT of width 32 and depth 4"),
                ("input_size", "256"),
                ("normalization", "pixel-mean"),
                ("masks", "single"),
                ("window_level", "40"),
            ] {
                assert_eq!(description[key], value, "{key}");
            }
            assert!(!text("code/__torch__.py").contains("torch.device("));
        }
    }
}

#[test]
fn the_cam_vector_is_what_merging_leaves_out() {
    let case = Case::small_vit();
    assert!(case.trained(&case.settings).has_trained_cam_vector());
    assert!(!model(&case.weights, &case.settings).has_trained_cam_vector());
}
