//! A whole volume: each slice by itself first, then with its neighbours, as `[prediction.volume]` says.

use crate::encoded::EncodedSlice;
use crate::not_a_number::{NotANumber, is_finite};
use crate::predictor::{Classification, Predictor, Scored, ScoredMask, SlicePrediction, scored_mask_for_box};
use crate::rules::{
    Taper, agreement, best_candidate, directions, keep_largest_component, lies_in, mean_inside, meet, surest,
};
use cam_classifier::EmptyMap;
use stage_api::{BoxPrompt, ClassifierInput, Embedding, PromptKinds};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::{Kind, Tensor};

/// Slices that the classifier takes together, where it reads slices.
const CHUNK: usize = 4;

/// So many slices, at most, from which masks go on to their neighbours.
const STARTS: usize = 4;

/// A mask of fewer pixels ends propagation.
const SMALLEST_MASK: usize = 10;

/// The slices of one volume in their order.
pub struct VolumeSlices<'a> {
    /// How many there are.
    pub count: usize,
    /// Their side in pixels.
    pub size: usize,
    /// Some of them, `[n, 1, H, H]`, windowed to `[0, 1]`, on the device.
    pub slices: &'a dyn Fn(Range<usize>) -> Tensor,
    /// The pretrained embedding `[1, C, g, g]` of a slice, by its index in the volume, 32-bit, on the device; where they are known
    /// already.
    pub pretrained: Option<&'a dyn Fn(usize) -> Embedding>,
}

/// A predicted volume.
#[derive(Debug)]
pub struct VolumePrediction {
    /// Its slices in order.
    pub slices: Vec<SlicePrediction>,
    /// The masks after each step that is switched on, in the steps' order; the last step's are the prediction.
    pub steps: Vec<StepMasks>,
}

/// What a step of the inference made of a volume.
#[derive(Debug)]
pub struct StepMasks {
    /// `CAM box` (`slice by slice` of a segmenter that takes no prompt, `whole image` of one without classifier), `refined`, `propagated` or `largest component`.
    pub name: &'static str,
    /// A mask a slice, row-major, 0 or 1.
    pub masks: Vec<Vec<u8>>,
    /// What it took for the volume; the first step's is with encoder and classifier.
    pub seconds: f64,
}

/// What is known of a slice when all slices were predicted by themselves.
struct Own {
    classification: Classification,
    /// `None`: the slice is called empty.
    found: Option<ScoredMask>,
    /// In half precision; `None` if nothing will be propagated to the slice.
    embedding: Option<Embedding>,
}

impl Predictor<'_> {
    /// Predicts a volume; `None` if it was stopped. `tick` is called once a slice, in order, with what is known of it then: its
    /// index, the classifier's result, and what the encoder makes of it.
    ///
    /// Memory for each slice of 256²: a classification (0.3 MiB), a mask (64 KiB) and one for each step; with `prediction.volume.propagate`
    /// also an embedding, 2 MiB of half-precision numbers (256 × 64 × 64), and up to four masks more. Without it no embedding
    /// outlives its slice.
    ///
    /// # Errors
    /// What is predicted of a slice is NaN.
    pub fn volume(
        &self,
        volume: &VolumeSlices,
        stop: &AtomicBool,
        tick: &mut dyn FnMut(usize, &Classification, &EncodedSlice),
    ) -> Result<Option<VolumePrediction>, NotANumber> {
        let mut steps = self.steps(volume.count);
        let Some(mut own) = self.slices_by_themselves(volume, stop, tick, &mut steps)? else { return Ok(None) };
        let mut scored: Option<Vec<Option<Scored>>> = None;
        let rules = &self.prediction.volume;
        let (mut masks, mut done) = (steps.own.last().map(|step| step.masks.clone()).unwrap_or_default(), steps.own);
        if rules.propagate {
            let begun = Instant::now();
            let Some(found) = self.propagated(&own, volume.size, stop) else { return Ok(None) };
            masks = found.masks;
            scored = Some(found.scored);
            let seconds = steps.keeping_seconds + begun.elapsed().as_secs_f64();
            done.push(StepMasks { name: "propagated", masks: masks.clone(), seconds });
        }
        if rules.largest_component {
            let begun = Instant::now();
            keep_largest_component(&mut masks, volume.size);
            let seconds = begun.elapsed().as_secs_f64();
            done.push(StepMasks { name: "largest component", masks: masks.clone(), seconds });
        }
        let scored = scored
            .unwrap_or_else(|| own.iter_mut().map(|slice| slice.found.take().map(|found| found.scored)).collect());
        let slices = own.into_iter().zip(masks.into_iter().zip(scored));
        let slices = slices
            .map(|(own, (mask, scored))| SlicePrediction { classification: own.classification, mask, scored })
            .collect();
        Ok(Some(VolumePrediction { slices, steps: done }))
    }

    fn steps(&self, count: usize) -> OwnSteps {
        let step = |name| StepMasks { name, masks: Vec::with_capacity(count), seconds: 0.0 };
        let refined = (self.prediction.refinements > 0).then(|| step("refined"));
        let first = match self.segmenter.prompts() {
            PromptKinds::None => "slice by slice",
            // A SAM has no classifier only with such a prompt.
            _ if self.prompt.empty == EmptyMap::Whole && self.classifier.tensors().is_empty() => "whole image",
            _ => "CAM box",
        };
        OwnSteps { own: std::iter::once(step(first)).chain(refined).collect(), keeping_seconds: 0.0 }
    }

    fn slices_by_themselves(
        &self,
        volume: &VolumeSlices,
        stop: &AtomicBool,
        tick: &mut dyn FnMut(usize, &Classification, &EncodedSlice),
        steps: &mut OwnSteps,
    ) -> Result<Option<Vec<Own>>, NotANumber> {
        let mut slices = Vec::with_capacity(volume.count);
        let is_adapted = self.segmenter.is_adapted();
        for start in (0..volume.count).step_by(CHUNK) {
            let begun = Instant::now();
            let images = (volume.slices)(start..volume.count.min(start + CHUNK));
            let mut classifications = match self.classifier.input() {
                ClassifierInput::Slices => {
                    self.classify(&images, volume.size).map_err(|error| error.behind(start))?.into_iter()
                }
                ClassifierInput::Embedding => Vec::new().into_iter(),
            };
            steps.own[0].seconds += begun.elapsed().as_secs_f64();
            for i in 0..images.size()[0] {
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let mut encoded = EncodedSlice::new(self.segmenter, is_adapted, images.narrow(0, i, 1));
                if let Some(pretrained) = volume.pretrained {
                    encoded = encoded.with_pretrained(pretrained(slices.len()));
                }
                let own = self.slice_by_itself(&encoded, classifications.next(), volume.size, steps);
                let own = own.map_err(|error| error.behind(slices.len()))?;
                tick(slices.len(), &own.classification, &encoded);
                slices.push(own);
            }
        }
        Ok(Some(slices))
    }

    /// A slice by itself; its masks go to the steps.
    fn slice_by_itself(
        &self,
        encoded: &EncodedSlice,
        classification: Option<Classification>,
        size: usize,
        steps: &mut OwnSteps,
    ) -> Result<Own, NotANumber> {
        let mut begun = Instant::now();
        let mut took = || std::mem::replace(&mut begun, Instant::now()).elapsed().as_secs_f64();
        let classification = match classification {
            Some(classification) => classification,
            None => self.classify(encoded.input(self.classifier.input()), size)?.remove(0),
        };
        let mut found = classification.present.then(|| self.for_prompt(encoded.adapted(), &classification.prompt));
        steps.own[0].masks.push(mask_of(found.as_ref(), size));
        steps.own[0].seconds += took();
        if let Some(step) = steps.own.get_mut(1) {
            found = found.map(|first| self.refined(encoded.adapted(), &classification.prompt, first));
            step.masks.push(mask_of(found.as_ref(), size));
            step.seconds += took();
        }
        if found.as_ref().is_some_and(|found| found.scored.score.is_nan()) {
            let (tensors, seen) = (self.segmenter.tensors(), &encoded.adapted().tensor);
            return Err(NotANumber::new(0, "the segmenter's mask", &tensors, seen));
        }
        let embedding = if self.prediction.volume.propagate {
            let embedding = encoded.adapted();
            // Of a slice that is called empty nothing was decoded yet; its neighbour's mask may lead to it.
            if !is_finite(&embedding.tensor) {
                let (tensors, seen) = (self.segmenter.tensors(), encoded.input(ClassifierInput::Slices));
                return Err(NotANumber::new(0, "the encoder's embedding", &tensors, seen));
            }
            Some(Embedding::new(embedding.tensor.to_kind(Kind::Half), embedding.slice_size))
        } else {
            None
        };
        steps.keeping_seconds += took();
        Ok(Own { classification, found, embedding })
    }

    /// What the surest slice leads to, or what others lead to that never meets it, whichever agrees best with the maps of all
    /// slices: one slice can be sure and wrong, when another organ fills it; a volume seldom.
    fn propagated(&self, own: &[Own], size: usize, stop: &AtomicBool) -> Option<Propagated> {
        let confidence = |slice: &Own| {
            let found =
                slice.found.as_ref().filter(|found| found.mask.contains(&1) && !slice.classification.prompt.empty)?;
            Some(found.scored.score * agreement([(self.places(&slice.classification), found.mask.as_slice())]))
        };
        let mut confidences: Vec<Option<f64>> = own.iter().map(confidence).collect();
        let mut objects: Vec<Propagated> = Vec::new();
        for _ in 0..STARTS {
            let Some(start) = surest(&confidences) else { break };
            let object = self.propagated_from(start, own, size, stop)?;
            for ((confidence, slice), mask) in confidences.iter_mut().zip(own).zip(&object.masks) {
                // A slice that is taken already begins nothing.
                confidence.take_if(|_| slice.found.as_ref().is_some_and(|found| lies_in(&found.mask, mask)));
            }
            if !objects.iter().any(|other| meet(&other.masks, &object.masks)) {
                objects.push(object);
            }
        }
        let agrees = |object: &Propagated| {
            let places = own.iter().map(|slice| self.places(&slice.classification));
            agreement(places.zip(object.masks.iter().map(Vec::as_slice)))
        };
        let ranked = objects.into_iter().map(|object| (agrees(&object), object));
        let best = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best });
        Some(best.map_or_else(|| Propagated::empty(own.len(), size), |(_, object)| object))
    }

    /// A slice's mask, and from there to both ends, slice by slice, the mask for which most speaks: of the slice's own box, or
    /// of its neighbour's mask's. Propagation ends where the mask found is small, lies where the map sees little, or grows again after
    /// the target tapered off: beyond, all slices are empty.
    fn propagated_from(&self, start: usize, own: &[Own], size: usize, stop: &AtomicBool) -> Option<Propagated> {
        let mut object = Propagated::empty(own.len(), size);
        object.set(start, own[start].found.clone()?);
        for direction in directions(start, own.len()) {
            let mut neighbour = largest_part(object.masks[start].clone(), size);
            let mut taper = Taper::new(self.prediction.volume.taper, area(&object.masks[start]));
            for slice in direction {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                let found = self.propagated_to(&own[slice], &neighbour, size);
                let Some(found) = found.filter(|found| taper.allows(area(&found.mask))) else { break };
                neighbour = largest_part(found.mask.clone(), size);
                object.set(slice, found);
            }
        }
        Some(object)
    }

    /// The mask of a slice whose neighbour has one; `None` where propagation ends.
    fn propagated_to(&self, slice: &Own, neighbour: &[u8], size: usize) -> Option<ScoredMask> {
        let rules = &self.prediction.volume;
        let kept = slice.embedding.as_ref()?;
        let embedding = Embedding::new(kept.tensor.to_kind(Kind::Float), kept.slice_size);
        let bounds = BoxPrompt::around(neighbour, size)?.enlarged(rules.margin_px, size);
        let mut candidates = vec![scored_mask_for_box(self.segmenter, &embedding, bounds, None)];
        let classification = &slice.classification;
        if !classification.prompt.empty {
            candidates.push(slice.found.clone().unwrap_or_else(|| self.for_prompt(&embedding, &classification.prompt)));
        }
        let places = self.places(classification);
        let found = best_candidate(candidates, neighbour, size)?;
        (area(&found.mask) >= SMALLEST_MASK && mean_inside(&places, &found.mask) >= rules.support).then_some(found)
    }

    /// The probability that the target is at each place: the map itself where it is one, else its share of its maximum.
    fn places<'l>(&self, classification: &'l Classification) -> Cow<'l, [f32]> {
        if self.prompt.absolute {
            return Cow::Borrowed(&classification.cam);
        }
        let peak = classification.cam.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        Cow::Owned(classification.cam.iter().map(|cam| cam / peak).collect())
    }
}

/// What one slice leads to.
struct Propagated {
    /// A mask a slice, row-major, 0 or 1.
    masks: Vec<Vec<u8>>,
    /// What the decoder thinks of each; `None` where it is empty.
    scored: Vec<Option<Scored>>,
}

impl Propagated {
    fn empty(slices: usize, size: usize) -> Self {
        Self { masks: vec![vec![0; size * size]; slices], scored: vec![None; slices] }
    }

    fn set(&mut self, slice: usize, found: ScoredMask) {
        self.masks[slice] = found.mask;
        self.scored[slice] = Some(found.scored);
    }
}

/// The steps of slices by themselves.
struct OwnSteps {
    own: Vec<StepMasks>,
    /// Spent on embeddings that are kept for the slices' neighbours.
    keeping_seconds: f64,
}

/// Pixels of a mask.
fn area(mask: &[u8]) -> usize {
    mask.iter().filter(|&&m| m != 0).count()
}

fn largest_part(mask: Vec<u8>, size: usize) -> Vec<u8> {
    let mut part = [mask];
    keep_largest_component(&mut part, size);
    let [part] = part;
    part
}

fn mask_of(found: Option<&ScoredMask>, size: usize) -> Vec<u8> {
    found.map_or_else(|| vec![0; size * size], |found| found.mask.clone())
}
