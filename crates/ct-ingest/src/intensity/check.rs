//! Whether an image's values can be HU, or what they are said to be; and what they look like otherwise.
//!
//! Docs and reasons of every threshold: `docs/reference/intensity.md`. They were chosen so that no CT of the test data is
//! refused, nor a crop of soft tissue alone, nor a CT clipped to a window that reaches below water.

use super::Intensity;
use super::sample::Sample;
use crate::{Scalar, Volume};

/// Fat, muscle, blood and organs with and without contrast medium, HU.
const TISSUE: [f64; 2] = [-200.0, 300.0];

/// Air and lung, HU.
const AIR: [f64; 2] = [-1100.0, -850.0];

/// Between lung and fat, where a CT has little but the edges of both.
const BETWEEN: [f64; 2] = [-700.0, -300.0];

/// The least difference between the darkest and the brightest thousandth of a CT, and the least standard deviation: noise
/// alone makes more.
const LEAST_SPAN: f64 = 30.0;
const LEAST_DEVIATION: f64 = 4.0;

/// How HU are kept elsewhere, as slope and intercept that lead back, and its name.
const KEPT_OTHERWISE: [(f64, f64, &str); 7] = [
    (1.0, -1024.0, "HU + 1024, or a scanner's stored numbers without their rescale intercept"),
    (1.0, -32768.0, "HU + 32768"),
    (1.0, -33792.0, "HU + 1024 + 32768"),
    (1.0, 1024.0, "HU - 1024, as if a rescale intercept had been taken twice"),
    (1.0, 31744.0, "HU + 1024 - 32768"),
    (0.1, 0.0, "HU times 10"),
    (1000.0, 0.0, "HU divided by 1000"),
];

/// Why an image is refused, in the words that follow its name; `None` if it isn't.
pub(super) fn refusal(intensity: Intensity, volume: &Volume) -> Option<String> {
    let hu = Sample::of(&volume.voxels);
    let scaling = intensity.scaling();
    match intensity {
        Intensity::CheckedHu => {
            let why = impossible(&hu).or_else(|| unlikely(&hu, volume))?;
            Some(format!("{}, which can't be HU: {why}. {}", values(&hu), advice(&hu)))
        }
        Intensity::Hu => {
            let why = flat(&hu)?;
            Some(format!("{}, which are no HU, though they are declared as such: {why}. {}", values(&hu), advice(&hu)))
        }
        Intensity::Offset { .. } | Intensity::Rescale { .. } => {
            let file = hu.rescaled(1.0 / scaling.slope, -scaling.inter / scaling.slope);
            let why = if is_ct(&file) && !is_ct(&hu) {
                Some(format!("they have air and tissue where HU have them ({})", air_and_tissue(&file)))
            } else {
                impossible(&hu).map(|why| format!("in HU that would be {}: {why}", plain_range(&hu)))
            }?;
            Some(format!("{}, which contradicts the declared {intensity}: {why}. {}", values(&file), advice(&file)))
        }
        Intensity::Grey8 { .. } | Intensity::Unit { .. } | Intensity::SignedUnit { .. } => {
            let file = hu.rescaled(1.0 / scaling.slope, -scaling.inter / scaling.slope);
            let [low, high] = intensity.window_values()?;
            // Interpolation may overshoot at the window's ends.
            let over = 0.1 * (high - low);
            let [least, most] = file.range();
            let why = if least < low - over || most > high + over {
                Some(format!("it has values from {low} to {high}"))
            } else {
                flat(&hu).map(|why| format!("in HU that would be {}: {why}", plain_range(&hu)))
            }?;
            Some(format!("{}, which contradicts the declared {intensity}: {why}. {}", values(&file), advice(&file)))
        }
    }
}

/// What a person should know of values that were declared to be HU.
pub(super) fn doubt(intensity: Intensity, volume: &Volume) -> Option<String> {
    if intensity != Intensity::Hu {
        return None;
    }
    let hu = Sample::of(&volume.voxels);
    let why = impossible(&hu).or_else(|| unlikely(&hu, volume))?;
    Some(format!("it {}, and was taken for HU, as declared, though {why}. {}", values(&hu), looks_like(&hu).0))
}

/// `has values from -1024 to 3071 (1 % below -1020, half below -900)`.
fn values(sample: &Sample) -> String {
    let [low, high] = sample.range();
    let [dark, median] = [0.01, 0.5].map(|share| rounded(sample.quantile(share)));
    format!("has values from {} to {} (1 % below {dark}, half below {median})", rounded(low), rounded(high))
}

fn plain_range(sample: &Sample) -> String {
    let [low, high] = sample.range();
    format!("{} to {}", rounded(low), rounded(high))
}

/// No more digits than a person reads.
fn rounded(value: f64) -> f64 {
    let unit = if value.abs() < 100.0 { 1000.0 } else { 10.0 };
    // Adding zero makes a negative zero positive.
    (value * unit).round() / unit + 0.0
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}

fn share(sample: &Sample, of: [f64; 2]) -> f64 {
    sample.share(of[0], of[1])
}

/// Less contrast than any CT has.
fn flat(hu: &Sample) -> Option<String> {
    let span = hu.quantile(0.999) - hu.quantile(0.001);
    let [_, deviation] = hu.moments();
    (span < LEAST_SPAN || deviation < LEAST_DEVIATION).then(|| {
        format!(
            "all but the outermost 0.2 % of them lie within {} (standard deviation {}), and a CT's noise alone spans more than \
             {LEAST_SPAN} HU (standard deviation {LEAST_DEVIATION})",
            rounded(span),
            rounded(deviation)
        )
    })
}

/// What no HU can be.
fn impossible(hu: &Sample) -> Option<String> {
    let (tissue, below) = (share(hu, TISSUE), hu.share(f64::NEG_INFINITY, -1300.0));
    let [low, high] = TISSUE;
    let too_low = || {
        let found = percent(below);
        (below > 0.05).then(|| format!("{found} of them are below -1300, and air is -1000, expected at most 5 %"))
    };
    let no_tissue = || {
        let found = percent(tissue);
        (tissue < 0.005)
            .then(|| format!("{found} of them are from {low} to {high}, where tissue is, expected 0.5 % at least"))
    };
    flat(hu).or_else(too_low).or_else(no_tissue)
}

/// What HU could be, but hardly ever are, and what other images often are.
fn unlikely(hu: &Sample, volume: &Volume) -> Option<String> {
    let [low, high] = hu.range();
    if volume.voxels.scalar() == Scalar::U8 && low >= 0.0 && high <= 255.0 {
        return Some("they are bytes, which have no place for air (-1000) and fat (-100)".to_owned());
    }
    if low == 0.0 && [100.0, 255.0, 4095.0, 65535.0].contains(&high) {
        return Some(format!(
            "they fill the range from 0 to {high} exactly, as other units do, and none is below 0 (air is -1000)"
        ));
    }
    let [dark, median, bright] = [0.01, 0.5, 0.999].map(|share| hu.quantile(share));
    let darkest = hu.quantile(0.001);
    let edge = darkest + 0.03 * (bright - darkest);
    let background = hu.share(f64::NEG_INFINITY, edge);
    if dark >= -5.0 && background >= 0.1 {
        return Some(format!(
            "{} of them are at the dark end, up to {}, as a background is, and hardly any is below 0 (air is -1000, fat is -100)",
            percent(background),
            rounded(edge)
        ));
    }
    if dark >= -200.0 && median > 300.0 {
        return Some(format!(
            "half of them are above {}, denser than any soft tissue, and hardly any is air",
            rounded(median)
        ));
    }
    let shifted = hu.rescaled(1.0, -1024.0);
    (dark >= -200.0 && is_ct(&shifted)).then(|| {
        format!("hardly any is below 0, but 1024 lower there would be air and tissue ({})", air_and_tissue(&shifted))
    })
}

/// Whether air and tissue are where HU have them, little is between, and most of what is denser is tissue.
fn is_ct(hu: &Sample) -> bool {
    let [air, tissue, between] = [AIR, TISSUE, BETWEEN].map(|of| share(hu, of));
    let little_else = between <= tissue / 2.0 && hu.share(BETWEEN[1], f64::INFINITY) <= 2.0 * tissue;
    air >= 0.05 && tissue >= 0.05 && little_else && hu.share(f64::NEG_INFINITY, -1300.0) <= 0.05
}

/// Whether nearly all is tissue, as in a narrow crop or a narrow window.
fn is_soft_tissue(hu: &Sample) -> bool {
    hu.quantile(0.001) >= -300.0 && share(hu, TISSUE) >= 0.9 && flat(hu).is_none()
}

fn air_and_tissue(hu: &Sample) -> String {
    let one = |of: [f64; 2]| format!("{} from {} to {}", percent(share(hu, of)), of[0], of[1]);
    format!("{}, {}", one(AIR), one(TISSUE))
}

/// What the values look like, and what to do.
fn advice(file: &Sample) -> String {
    let (looks, declare) = looks_like(file);
    let anyway =
        "If they are HU all the same: `\"intensity\": {\"kind\": \"hu\"}` in the manifest (--intensity hu of predict)";
    match declare {
        Some(declare) => format!("{looks} If so, say it: {declare}. {anyway}"),
        None if flat(file).is_some() => looks,
        None => format!("{looks} {anyway}"),
    }
}

/// What the values look like; how to say it, if HU can be made of them.
fn looks_like(file: &Sample) -> (String, Option<String>) {
    // Back from HU there is a rounding error.
    let [low, high] = file.range().map(|value| (value * 1e6).round() / 1e6);
    let [mean, deviation] = file.moments();
    let say = |intensity: Intensity| {
        let json = serde_json::to_string(&intensity).unwrap_or_default();
        format!("`\"intensity\": {json}` in the manifest (--intensity {intensity} of predict)")
    };
    let window = " with the window that was used (here level 40, width 400)";
    let (level, width) = (40.0, 400.0);
    let of_window = |looks: &str, intensity| (format!("It looks like {looks}."), Some(say(intensity) + window));
    if is_ct(file) {
        return ("It looks like HU as they are.".to_owned(), Some("leave `intensity` (--intensity) out".to_owned()));
    }
    if low >= -0.001 && high <= 1.001 {
        return of_window("a CT's window scaled to 0 to 1", Intensity::Unit { level, width });
    }
    if low >= -1.001 && high <= 1.001 {
        return of_window("a CT's window scaled to -1 to 1", Intensity::SignedUnit { level, width });
    }
    let fits = |is: fn(&Sample) -> bool, shifts_only: bool| {
        KEPT_OTHERWISE
            .iter()
            .filter(|(slope, ..)| !shifts_only || *slope == 1.0)
            .find(|(slope, intercept, _)| is(&file.rescaled(*slope, *intercept)))
    };
    if let Some(&(slope, intercept, name)) = fits(is_ct, false).or_else(|| fits(is_soft_tissue, true)) {
        let (intensity, choice) = match intercept {
            -1024.0 => (Intensity::Offset { by: 1024.0 }, ", or 1000, whichever was added"),
            _ if slope == 1.0 => (Intensity::Offset { by: -intercept }, ""),
            _ => (Intensity::Rescale { slope, intercept }, ""),
        };
        return (format!("It looks like {name}."), Some(say(intensity) + choice));
    }
    if flat(file).is_some() {
        let unit = mean.abs() < 0.1 && (deviation - 1.0).abs() < 0.1;
        let name = if unit {
            "z-scores (mean 0, standard deviation 1)"
        } else {
            "z-scores, or values normalised in another way"
        };
        let text = format!(
            "It looks like {name}: HU can't be made of them, because the mean and the deviation that were taken away are not in \
             the file. Export the CT anew as HU; where both numbers are known, and the same for all files, \
             {} with the deviation as slope and the mean as intercept.",
            say(Intensity::Rescale { slope: 480.0, intercept: -600.0 })
        );
        return (text, None);
    }
    if low >= 0.0 && high <= 100.0 {
        let percent = Intensity::Rescale { slope: width / 100.0, intercept: level - width / 2.0 };
        return of_window("a CT's window in percent", percent);
    }
    if low >= 0.0 && high <= 255.0 {
        return of_window("8-bit grey levels, of a CT or of anything else", Intensity::Grey8 { level, width });
    }
    if low >= 0.0 && high == 65535.0 {
        let stretched = Intensity::Rescale { slope: width / 65535.0, intercept: level - width / 2.0 };
        return of_window("a CT's window stretched to 16 bits", stretched);
    }
    if low >= 0.0 && high == 4095.0 {
        let text = "It looks like a scanner's 12-bit numbers without rescale slope and intercept.";
        return (text.to_owned(), Some(say(Intensity::Offset { by: 1024.0 }) + ", if 1024 is the scanner's offset"));
    }
    let text = if file.quantile(0.01) >= -200.0 {
        "It looks like MR, or another image that is no CT: its values have no unit, and HU can't be made of them."
    } else {
        "It looks like nothing that is known; where slope and intercept of the HU are known, `\"intensity\": {\"kind\": \
         \"rescale\", \"slope\": …, \"intercept\": …}` in the manifest (--intensity rescale:SLOPE:INTERCEPT of predict)."
    };
    (text.to_owned(), None)
}
