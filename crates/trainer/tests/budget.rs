//! A run reads the annotations that its budget counts, and no others: masks that it doesn't pay for can say anything.

mod common;

use common::{Bench, CONFIG, assert_same_end, store, store_of, weights};
use rand::Rng;
use run_record::{Annotation, RunRecord};
use slice_sampling::{NoSights, UniformSubset, for_training, select};
use slice_store::{Crop, SliceId, SliceStore};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tch::Device;
use trainer::config::Config;
use trainer::loader::Loader;
use trainer::plan::stream;

const EMBEDDING: [&str; 3] = [
    "classifier={kind=\"embedding\", batch_slices=4, batch_masks=2, settings={channels=16}}",
    "augmented_copies={count=4, slices=6}",
    "augmentation.labelled={rotate_deg=20, low_resolution=1, noise_hu=20}",
];

const CROPS: [&str; 2] = [
    "classifier={kind=\"embedding\", weak_crops=\"one-per-slice\", batch_slices=4, settings={channels=16}}",
    "prompt={threshold=0.5, absolute=true}",
];

const ONE_PHASE: &str = "phase=[{name='classifier', epochs=1, labelled_passes=0}]";

/// A copy of a store in which the masks that `is_read` doesn't name are noise; which slices show the target stays.
fn noisy(store: &Path, is_read: impl Fn(&SliceId, [usize; 2]) -> bool) -> PathBuf {
    let copy = store.with_file_name("noisy");
    for folder in ["", "images", "masks", "cases"] {
        std::fs::create_dir_all(copy.join(folder)).unwrap();
        for entry in std::fs::read_dir(store.join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_file() {
                std::fs::copy(&entry, copy.join(folder).join(entry.file_name().unwrap())).unwrap();
            }
        }
    }
    let size = SliceStore::open(store).unwrap().slice_size();
    let mut changed = 0;
    for entry in std::fs::read_dir(copy.join("masks")).unwrap().map(|entry| entry.unwrap().path()) {
        let case = entry.file_stem().unwrap().to_str().unwrap();
        let mut bytes = std::fs::read(&entry).unwrap();
        let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let mut rng = stream(0, case);
        for (i, pixel) in bytes[header..].iter_mut().enumerate() {
            let id = SliceId { case: case.to_owned(), index: (i / (size * size)) as u32 };
            if !is_read(&id, [i / size % size, i % size]) {
                *pixel = u8::from(rng.random_bool(0.5));
                changed += 1;
            }
        }
        std::fs::write(&entry, bytes).unwrap();
    }
    assert!(changed > 4 * size * size, "the copy is no other store");
    copy
}

/// Both runs' ends are the same bits.
fn assert_unread(name: &str, set: &[&str], crop_of: impl Fn(&SliceStore, &Config) -> Vec<(SliceId, Crop)>) {
    let Some(weights) = weights(name) else { return };
    let place = tempfile::tempdir().unwrap();
    let path = store(place.path());
    let (a, b) = (place.path().join("a"), place.path().join("b"));
    let bench = Bench::new(CONFIG, &path, weights.clone());
    let record = bench.train(&a, set).unwrap();
    assert_eq!(RunRecord::load(&a).unwrap().label_budget, record.label_budget);
    let paid: BTreeSet<&SliceId> = [Annotation::Masks, Annotation::ValidationMasks]
        .into_iter()
        .flat_map(|kind| record.label_budget.slices(kind))
        .collect();
    assert_eq!(paid.len(), 4);
    let sets: Vec<String> = set.iter().map(|&item| item.to_owned()).collect();
    let crops = crop_of(&SliceStore::open(&path).unwrap(), &Config::parse(CONFIG, &sets).unwrap());
    let other = noisy(&path, |id, [y, x]| {
        let in_crop = |crop: &Crop| {
            (crop.top..crop.top + crop.side).contains(&y) && (crop.left..crop.left + crop.side).contains(&x)
        };
        paid.contains(id) || crops.iter().any(|(of, crop)| of == id && in_crop(crop))
    });
    Bench::new(CONFIG, &other, weights).train(&b, set).unwrap();
    assert_same_end(&a, &b, &["weights.safetensors", "optimizer.safetensors"]);
}

#[test]
fn masks_outside_the_budget_of_a_classifier_on_slices_change_no_bit() {
    let name = "masks_outside_the_budget_of_a_classifier_on_slices_change_no_bit";
    assert_unread(name, &[], |_, _| Vec::new());
    assert_unread(name, &["classifier.crop_negatives=true", "classifier.crop_size=32"], |_, _| Vec::new());
}

#[test]
fn masks_outside_the_budget_of_augmented_copies_change_no_bit() {
    let name = "masks_outside_the_budget_of_augmented_copies_change_no_bit";
    assert_unread(name, &EMBEDDING, |_, _| Vec::new());
}

#[test]
fn what_lies_around_labelled_crops_changes_no_bit() {
    assert_unread("what_lies_around_labelled_crops_changes_no_bit", &CROPS, |store, config| {
        let selection = select(store.records(), &config.sampling, (&UniformSubset, &NoSights), 0).unwrap();
        let paid = for_training(store, &selection).unwrap();
        let loader = Loader::new(&paid, config, Device::Cpu, 1).unwrap();
        let row = |id: &SliceId| store.position(id).unwrap();
        selection.train.iter().filter_map(|id| Some((id.clone(), loader.weak_crop(row(id), 64)?))).collect()
    });
}

#[test]
fn the_budget_counts_each_label_of_a_crop_and_what_chose_the_labelled_slices() {
    let Some(weights) = weights("the_budget_counts_each_label_of_a_crop_and_what_chose_the_labelled_slices") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let bench = Bench::new(CONFIG, &store(place.path()), weights);
    // Two patients of 12 slices train, two slices of them are labelled.
    let budget =
        |name: &str, set: &[&str]| bench.train(&place.path().join(name), set).unwrap().label_budget.to_string();
    let crops = "2 masks, 2 validation masks, 22 crop labels, 22 image-level labels to choose the labelled slices by";
    assert_eq!(budget("crops", &CROPS), crops);
    assert_eq!(budget("slices", &[]), "2 masks, 2 validation masks, 22 image-level labels");
    // The classifier sees six slices beside the labelled ones.
    let with_copies =
        "2 masks, 2 validation masks, 6 image-level labels, 16 image-level labels to choose the labelled slices by";
    assert_eq!(budget("copies", &EMBEDDING), with_copies);
}

#[test]
fn crops_that_do_not_fit_the_embedding_are_refused_where_that_was_kept_too() {
    let Some(weights) = weights("crops_that_do_not_fit_the_embedding_are_refused_where_that_was_kept_too") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    // Places of an embedding are a pixel and a half of these slices.
    let mut bench = Bench::new(CONFIG, &store_of(place.path(), 96), weights);
    bench.embeddings = Some(place.path().join("kept"));
    let slices = ["classifier={kind=\"embedding\", batch_slices=4, settings={channels=16}}", ONE_PHASE];
    bench.train(&place.path().join("slices"), &slices).unwrap();
    let kept = std::fs::read_dir(place.path().join("kept")).unwrap().count();
    let error = bench.train(&place.path().join("crops"), &[CROPS[0], ONE_PHASE]).unwrap_err().to_string();
    assert!(error.contains("slices of 96 pixels don't fit the 64 places"), "{error}");
    assert_eq!((kept, std::fs::read_dir(place.path().join("kept")).unwrap().count()), (2, 2));
}
