//! Prompts of labelled slices in training. This is not the prediction path: the true mask is used here, and only here.

use crate::config::{Config, PromptSource};
use cam_classifier::{PromptSettings, cam_prompts};
use predictor::mask_tensor;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use stage_api::{BoxPrompt, Mode, PresenceClassifier, Prompts};
use tch::Tensor;

/// Draws the prompt of one labelled slice of `size` pixels a side; `seen` is what the classifier reads of it, `truth` the
/// tight box around its mask.
///
/// The decoder must see the CAM's own boxes, at several thresholds, beside jittered true ones: with only the latter it
/// trusts the box too much. The CAM's mask goes along with its own box, and with every second true box.
pub fn training_prompt(
    config: &Config,
    source: PromptSource,
    classifier: &dyn PresenceClassifier,
    (seen, size): (&Tensor, usize),
    truth: Option<BoxPrompt>,
    rng: &mut ChaCha8Rng,
) -> Prompts {
    let settings = &config.training_prompts;
    if rng.random_bool(settings.whole_share) {
        return Prompts { boxes: Some(vec![BoxPrompt::whole(size)]), ..Prompts::default() };
    }
    let from_cam = match source {
        PromptSource::Gt => false,
        PromptSource::Mix => rng.random_bool(settings.cam_share),
        PromptSource::Cam => true,
    };
    let threshold = settings.cam_thresholds[rng.random_range(0..settings.cam_thresholds.len())];
    let with_mask = from_cam || rng.random_bool(0.5);
    let jittered = truth
        .filter(|_| !from_cam)
        .map(|tight| jittered(tight, settings.jitter_outward_px, settings.jitter_inward_px, size, rng));
    // The map is looked at on the host: where it isn't needed, neither is the classifier's pass, nor, on a GPU, the wait.
    let prompt = (with_mask || jittered.is_none()).then(|| {
        let cam = classifier.forward(seen, Mode::Eval).cam;
        cam_prompts(&cam, size, &PromptSettings { threshold, ..config.prompt }).remove(0)
    });
    let bounds = jittered.or(prompt.as_ref().map(|p| p.bounds));
    let cam_mask = prompt.filter(|_| with_mask).map(|p| mask_tensor(&p.mask, size, seen.device()));
    Prompts { boxes: bounds.map(|b| vec![b]), cam_mask, ..Prompts::default() }
}

/// Each side moves by its own uniform draw; a box that would turn inside out keeps its side.
fn jittered(tight: BoxPrompt, outward: f32, inward: f32, size: usize, rng: &mut ChaCha8Rng) -> BoxPrompt {
    let last = size as f32 - 1.0;
    let mut draw = || -inward + rng.random::<f32>() * (inward + outward);
    let moved = BoxPrompt {
        x0: (tight.x0 - draw()).clamp(0.0, last),
        y0: (tight.y0 - draw()).clamp(0.0, last),
        x1: (tight.x1 + draw()).clamp(0.0, last),
        y1: (tight.y1 + draw()).clamp(0.0, last),
    };
    BoxPrompt {
        x0: if moved.x0 < moved.x1 { moved.x0 } else { tight.x0 },
        x1: if moved.x0 < moved.x1 { moved.x1 } else { tight.x1 },
        y0: if moved.y0 < moved.y1 { moved.y0 } else { tight.y0 },
        y1: if moved.y0 < moved.y1 { moved.y1 } else { tight.y1 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::stream;

    #[test]
    fn jitter_keeps_a_box_that_contains_something() {
        let mut rng = stream(0, "test");
        for _ in 0..200 {
            let tight = BoxPrompt { x0: 100.0, y0: 50.0, x1: 104.0, y1: 90.0 };
            let b = jittered(tight, 25.0, 12.0, 256, &mut rng);
            assert!(b.x0 <= b.x1 && b.y0 <= b.y1 && b.x0 >= 75.0 && b.x1 <= 129.0 && b.y0 >= 25.0 && b.y1 <= 115.0);
        }
    }
}
