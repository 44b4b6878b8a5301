//! Slices that look the same though they should be strangers: of two patients of the data set that is trained on, or of it and of
//! another one. A warning, since it may be chance; kept by the stores' checksums.
//!
//! A slice's hash has a bit for each of 16 × 16 places of its central three quarters, at a soft-tissue window: whether the place to the
//! right is denser. Measured at 256²: slices of different patients differ in 50 bits or more on lits-mini (798 slices of 11 patients), in 43 on
//! synthetic CT, and in 75 between lits-mini and TotalSegmentator; copies with noise of 20 HU differ in up to 20, those moved by half a
//! pixel in up to 14, those clipped or resized through 512² in up to 5.

use anyhow::{Context, Result};
use run_record::{read_json, write_json};
use serde::{Deserialize, Serialize};
use slice_store::{SliceStore, Slices};
use std::path::Path;

/// At most so many bits of the 256 differ between near-duplicates.
const SAME_BITS: u32 = 30;
/// Pairs that are named.
const NAMED: usize = 5;
const SIDE: usize = 16;
/// HU, soft tissue.
const WINDOW: (i16, i16) = (-160, 240);

/// What was found.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaks {
    /// Of the stores, the one that is trained on first.
    checksums: Vec<String>,
    /// Slices that were compared; those with too little to see are left out.
    slices: usize,
    left_out: usize,
    /// Pairs of near-duplicates.
    pub pairs: usize,
    /// The first of them.
    first: Vec<String>,
}

/// Of these stores, from `kept` if that is of them, else looked for and kept there.
pub fn find(stores: &[&Path], kept: &Path) -> Result<Leaks> {
    let open = |path: &&Path| SliceStore::open(path).with_context(|| format!("cannot open '{}'", path.display()));
    let stores: Vec<SliceStore> = stores.iter().map(open).collect::<Result<_>>()?;
    let checksums: Vec<String> = stores.iter().map(|store| store.checksum().to_owned()).collect();
    if let Some(leaks) = read_json::<Leaks>(kept).ok().filter(|leaks| leaks.checksums == checksums) {
        return Ok(leaks);
    }
    let slices: Vec<&Slices> = stores.iter().map(|store| &**store).collect();
    let leaks = compare(&slices, checksums);
    write_json(kept, &leaks)?;
    Ok(leaks)
}

impl Leaks {
    /// One paragraph.
    pub fn words(&self) -> String {
        let left_out = match self.left_out {
            0 => String::new(),
            count => format!(" ({count} with too little to see left out)"),
        };
        let compared = format!("{} slices{left_out} compared by a hash of their central part", self.slices);
        match self.pairs {
            0 => format!("No near-duplicates between patients or data sets: {compared}."),
            pairs => format!(
                "**Near-duplicates between patients or data sets: {pairs} pairs**, such as {}. {compared}. Whether they are in different splits, \
                 `selection.json` of a run says.",
                self.first.join("; ")
            ),
        }
    }
}

struct Hashed {
    store: usize,
    row: usize,
    bits: [u64; SIDE * SIDE / 64],
}

fn compare(stores: &[&Slices], checksums: Vec<String>) -> Leaks {
    let (mut hashed, mut left_out) = (Vec::new(), 0);
    for (index, store) in stores.iter().enumerate() {
        for row in 0..store.records().len() {
            match hash(store.image(row), store.slice_size()) {
                Some(bits) => hashed.push(Hashed { store: index, row, bits }),
                None => left_out += 1,
            }
        }
    }
    let record = |it: &Hashed| &stores[it.store].records()[it.row];
    let name = |it: &Hashed| format!("{} of {}", record(it).id(), stores[it.store].info().dataset);
    let (mut pairs, mut first) = (0, Vec::new());
    for (at, one) in hashed.iter().enumerate().take_while(|(_, one)| one.store == 0) {
        for other in &hashed[at + 1..] {
            let bits: u32 = one.bits.iter().zip(&other.bits).map(|(a, b)| (a ^ b).count_ones()).sum();
            if bits <= SAME_BITS && (other.store != 0 || record(one).patient != record(other).patient) {
                pairs += 1;
                if first.len() < NAMED {
                    first.push(format!("{} and {}", name(one), name(other)));
                }
            }
        }
    }
    Leaks { checksums, slices: hashed.len(), left_out, pairs, first }
}

/// `None` of an image with too little to see: half of the neighbouring places are as dense as each other, or it is too small.
fn hash(image: &[i16], size: usize) -> Option<[u64; SIDE * SIDE / 64]> {
    let (low, high) = (size / 8, size - size / 8);
    let side = high - low;
    if side <= SIDE {
        return None;
    }
    let mut bits = [0; SIDE * SIDE / 64];
    let mut differing = 0;
    for row in 0..SIDE {
        let rows = low + side * row / SIDE..low + side * (row + 1) / SIDE;
        let place = |column: usize| {
            let columns = low + side * column / (SIDE + 1)..low + side * (column + 1) / (SIDE + 1);
            let pixels = rows.clone().flat_map(|y| &image[y * size + columns.start..y * size + columns.end]);
            let sum: i64 = pixels.map(|&hu| i64::from(hu.clamp(WINDOW.0, WINDOW.1))).sum();
            sum as f64 / (rows.len() * columns.len()) as f64
        };
        let places: Vec<f64> = (0..=SIDE).map(place).collect();
        for (column, pair) in places.windows(2).enumerate() {
            let at = row * SIDE + column;
            differing += usize::from((pair[1] - pair[0]).abs() > 1.0);
            bits[at / 64] |= u64::from(pair[1] > pair[0]) << (at % 64);
        }
    }
    (2 * differing >= SIDE * SIDE).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use slice_store::{CaseData, FORMAT_VERSION, SliceLabel, SliceRecord, StoreInfo, StoreSettings, StoreWriter};

    const SIZE: usize = 64;

    /// Waves of tissue, others for each seed.
    fn image(seed: f64) -> Vec<i16> {
        let wave = |x: f64, y: f64| (x * (0.2 + 0.05 * seed) + seed).sin() + (y * 0.3 + x * 0.17 * seed).cos();
        (0..SIZE * SIZE).map(|at| (50.0 * wave((at % SIZE) as f64, (at / SIZE) as f64)) as i16).collect()
    }

    fn distance(a: &[i16], b: &[i16]) -> u32 {
        let (a, b) = (hash(a, SIZE).unwrap(), hash(b, SIZE).unwrap());
        a.iter().zip(&b).map(|(a, b)| (a ^ b).count_ones()).sum()
    }

    #[test]
    fn a_denser_or_clipped_copy_is_near_and_another_image_is_not() {
        let one = image(1.0);
        let denser: Vec<i16> = one.iter().map(|hu| hu + 15).collect();
        let clipped: Vec<i16> = one.iter().map(|&hu| hu.clamp(-90, 90)).collect();
        assert_eq!(distance(&one, &denser), 0);
        assert!(distance(&one, &clipped) <= SAME_BITS, "{}", distance(&one, &clipped));
        assert!(distance(&one, &image(2.0)) > SAME_BITS, "{}", distance(&one, &image(2.0)));
        assert_eq!(hash(&[-1024; SIZE * SIZE], SIZE), None, "air");
    }

    #[test]
    fn two_patients_with_the_same_ct_are_named_and_a_patient_is_no_stranger_to_itself() {
        let place = tempfile::tempdir().unwrap();
        let store = |name: &str, dataset: &str, cases: &[(&str, &str, f64)]| {
            let path = place.path().join(name);
            let info = StoreInfo {
                format_version: FORMAT_VERSION,
                dataset: dataset.into(),
                target: "liver".into(),
                settings: StoreSettings { slice_size: SIZE, ..StoreSettings::default() },
                tool_version: "0".into(),
                manifest: json!({}),
            };
            let writer = StoreWriter::create(&path, info).unwrap();
            for (case, patient, seed) in cases {
                let record = SliceRecord {
                    case: (*case).into(),
                    patient: (*patient).into(),
                    index: 0,
                    position_mm: 0.0,
                    row_spacing_mm: 1.0,
                    column_spacing_mm: 1.0,
                    slice_spacing_mm: 1.0,
                    spacing_valid: true,
                    label: SliceLabel::Unknown,
                    source_sha256: String::new(),
                };
                let images = image(*seed);
                let (manifest, provenance) = (json!({}), json!({}));
                let data = CaseData {
                    case,
                    patient,
                    images: &images,
                    masks: &[],
                    records: vec![record],
                    manifest,
                    provenance,
                };
                writer.write_case(data).unwrap();
            }
            writer.finish(cases.iter().map(|(case, ..)| *case)).unwrap();
            path
        };
        let own = store("own", "lits", &[("a1", "a", 1.0), ("a2", "a", 1.0), ("b1", "b", 2.0), ("c1", "c", 2.0)]);
        let other = store("other", "total", &[("x", "x", 1.0), ("y", "y", 1.0)]);
        let kept = place.path().join("runs/leaks.json");
        let leaks = find(&[&own, &other], &kept).unwrap();
        // `b1` and `c1`; `a1` and `a2` with `x` and `y` each. `x` and `y` are both evaluated, and nothing of them is learnt.
        assert_eq!(leaks.pairs, 5, "{leaks:?}");
        assert!(leaks.words().contains("a1/0000 of lits and x/0000 of total"), "{}", leaks.words());
        assert_eq!(find(&[&own, &other], &kept).unwrap(), leaks);
        assert_eq!(find(&[&own], &kept).unwrap().pairs, 1, "other stores are compared anew");
    }
}
