//! What the loader makes of a store.

mod common;

use common::{CONFIG, store};
use slice_store::{IGNORED, SliceStore, TrainingSlices};
use stage_api::BoxPrompt;
use tch::{Device, Tensor};
use trainer::config::Config;
use trainer::loader::{Batch, Loader};
use trainer::plan::{SliceCopy, Step, plan};

/// Everything on.
const ALL: &str = "rotate_deg = 10, scale = 0.2, shift = 0.1, elastic_px = 3, blur_px = 1, low_resolution = 1, \
    intensity_hu = 30, contrast = 0.2, gamma = 0.4, noise_hu = 20, probability = 0.7";

fn config(set: &[&str]) -> Config {
    let settings = ALL.replace(',', "\n");
    let tables = ["classifier", "labelled"].map(|name| format!("[augmentation.{name}]\n{settings}\n"));
    let text = format!("{}{CONFIG}", tables.concat());
    Config::parse(&text, &set.iter().map(|&s| s.to_owned()).collect::<Vec<_>>()).unwrap()
}

fn steps(config: &Config, store: &SliceStore) -> Vec<Step> {
    let rows: Vec<usize> = (0..store.records().len()).collect();
    plan(config, &rows, &labelled(store), &[], &[])
}

fn labelled(store: &SliceStore) -> Vec<usize> {
    (0..store.records().len()).filter(|&row| store.records()[row].has_target()).take(4).collect()
}

fn paid(store: &SliceStore) -> TrainingSlices<'_> {
    store.for_training(labelled(store)).unwrap()
}

fn tensors(batch: &Batch) -> Vec<&Tensor> {
    let mut all = Vec::new();
    if let Some(slices) = &batch.slices {
        all.extend([&slices.images, &slices.labels]);
        all.extend(&slices.strong);
    }
    if let Some((images, labels)) = &batch.crops {
        all.extend([images, labels]);
    }
    if let Some(labelled) = &batch.labelled {
        all.extend([&labelled.images, &labelled.masks]);
    }
    all
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

#[test]
fn batches_are_the_same_for_any_number_of_threads_and_any_prefetch() {
    let place = tempfile::tempdir().unwrap();
    let store = SliceStore::open(&store(place.path())).unwrap();
    let set = ["classifier.consistency=1.0", "classifier.crop_negatives=true", "classifier.crop_size=32"];
    let all = |threads: usize, prefetch: usize| -> Vec<Batch> {
        let mut config = config(&set);
        config.loader.prefetch = prefetch;
        let steps = steps(&config, &store);
        let store = paid(&store);
        let loader = Loader::new(&store, &config, Device::Cpu, threads).unwrap();
        std::thread::scope(|scope| loader.start(scope, &steps).collect())
    };
    let one = all(1, 1);
    assert!(one.iter().any(|b| b.slices.as_ref().is_some_and(|s| s.strong.is_some()) && b.crops.is_some()));
    for other in [all(2, 4), all(3, 1)] {
        assert_eq!(one.len(), other.len());
        for (a, b) in one.iter().zip(&other) {
            let (x, y) = (tensors(a), tensors(b));
            assert!(x.len() == y.len() && x.iter().zip(&y).all(|(x, y)| x.equal(y)), "step {}", a.step.index);
            assert_eq!(a.labelled.as_ref().map(|l| &l.boxes), b.labelled.as_ref().map(|l| &l.boxes));
        }
    }
}

#[test]
fn a_slice_that_is_not_changed_is_the_windowed_store() {
    let place = tempfile::tempdir().unwrap();
    let store = SliceStore::open(&store(place.path())).unwrap();
    let config = Config::parse(&format!("[augmentation.classifier]\nprobability = 0\n{CONFIG}"), &[]).unwrap();
    let paid = paid(&store);
    let loader = Loader::new(&paid, &config, Device::Cpu, 2).unwrap();
    let values = |t: &Tensor| Vec::<f32>::try_from(t.reshape([-1])).unwrap();
    let mut seen = 0;
    for step in &steps(&config, &store) {
        let batch = loader.load(step);
        let images = batch.slices.iter().flat_map(|s| (0..).zip(&step.slices).map(|(i, &row)| (s.images.get(i), row)));
        let labelled = batch.labelled.iter().flat_map(|l| {
            let rows = (0..).zip(&step.labelled);
            rows.map(|(i, &SliceCopy { row, .. })| {
                let truth = store.for_evaluation().mask(row).unwrap().to_vec();
                assert_eq!(values(&l.masks.get(i)), truth.iter().map(|&m| f32::from(m)).collect::<Vec<_>>());
                assert_eq!(l.boxes[i as usize], BoxPrompt::around(&truth, store.slice_size()));
                (l.images.get(i), row)
            })
        });
        for (image, row) in images.chain(labelled) {
            // Level 40, width 400.
            let expected = store.image(row).iter().map(|&hu| ((f32::from(hu) + 160.0) / 400.0).clamp(0.0, 1.0));
            assert_eq!(values(&image), expected.collect::<Vec<f32>>());
            seen += 1;
        }
    }
    assert!(seen > 50);
}

#[test]
fn boxes_are_around_the_changed_masks_and_strong_views_lie_where_the_weak_ones_do() {
    let place = tempfile::tempdir().unwrap();
    let store = SliceStore::open(&store(place.path())).unwrap();
    // Without noise and its like a slice's outline shows its geometry.
    let config = config(&[
        "augmentation.classifier={intensity_hu=0,contrast=0,gamma=0,noise_hu=0,rotate_deg=20,shift=0.1}",
        "augmentation.strong.probability=0",
        "classifier.consistency=1.0",
    ]);
    let paid = paid(&store);
    let loader = Loader::new(&paid, &config, Device::Cpu, 2).unwrap();
    let (mut moved, mut boxes) = (0, 0);
    for step in &steps(&config, &store) {
        let batch = loader.load(step);
        if let Some(slices) = &batch.slices {
            let strong = slices.strong.as_ref().unwrap();
            // Labelled slices stand behind the step's own and have no strongly augmented copies.
            let weak = slices.images.narrow(0, 0, step.slices.len() as i64);
            assert_eq!((largest(&(strong - weak)), strong.size()[0]), (0.0, step.slices.len() as i64));
            for (i, &row) in (0..).zip(&step.slices) {
                let plain: Vec<f32> = store.image(row).iter().map(|&hu| (f32::from(hu) + 160.0) / 400.0).collect();
                let plain = Tensor::from_slice(&plain).clamp(0.0, 1.0).reshape(slices.images.get(i).size());
                moved += usize::from(largest(&(slices.images.get(i) - plain)) > 0.1);
            }
        }
        if let Some(labelled) = &batch.labelled {
            for (i, bounds) in (0..).zip(&labelled.boxes) {
                let mask = Vec::<f32>::try_from(labelled.masks.get(i).reshape([-1])).unwrap();
                assert_eq!(*bounds, BoxPrompt::around(&mask, store.slice_size()));
                boxes += usize::from(bounds.is_some());
            }
        }
    }
    assert!(moved > 10 && boxes > 2, "{moved} slices moved, {boxes} boxes");
}

#[test]
fn a_copy_whose_target_moved_out_while_nobody_knows_the_rest_teaches_no_presence() {
    let place = tempfile::tempdir().unwrap();
    let size = stage_trial::SIZE;
    // The target is one corner; what could be the target is in the middle, and stays.
    let mut mask = vec![0u8; size * size];
    mask[..3].fill(1);
    for row in size / 3..size / 2 {
        mask[row * size + size / 3..row * size + size / 2].fill(IGNORED);
    }
    let masks = [mask, vec![0; size * size]].concat();
    let images = vec![0i16; masks.len()];
    let store = stage_trial::store_of(place.path(), size, [(images, masks)]).unwrap();
    let text = format!("{CONFIG}[augmentation.labelled]\nrotate_deg = 30\nprobability = 0.5\n");
    let config = Config::parse(&text.replace("epochs = 1", "epochs = 8"), &[]).unwrap();
    let paid = store.for_training([0]).unwrap();
    let loader = Loader::new(&paid, &config, Device::Cpu, 2).unwrap();
    let (mut stayed, mut moved_out) = (0, 0);
    for step in &plan(&config, &[0, 1], &[0], &[], &[]) {
        let batch = loader.load(step);
        let (Some(slices), Some(labelled)) = (batch.slices, batch.labelled) else { continue };
        let known = labelled.boxes.iter().flatten().count();
        let count = (step.slices.len() + known) as i64;
        assert_eq!((slices.images.size()[0], slices.labels.size()), (count, vec![count]));
        let behind = slices.labels.narrow(0, step.slices.len() as i64, known as i64);
        assert!(Vec::<f32>::try_from(behind).unwrap().iter().all(|&shown| shown == 1.0));
        stayed += known;
        moved_out += labelled.boxes.len() - known;
    }
    assert!(stayed > 0 && moved_out > 0, "{stayed} stayed, {moved_out} moved out");
}
