//! The prediction on the volumes' own voxels, in millimetres: what challenges report, beside the figures at the store's slice size.

use crate::slice_result::{SliceResult, mean, mean_if_all, unpack};
use anyhow::{Context, Result};
use ct_ingest::{NativeMasks, NativePair};
use run_record::{NativeResults, NativeVolume};
use seg_metrics::{VolumeView, volume_metrics};
use slice_store::EvaluationSlices;
use std::collections::BTreeMap;

/// Of surface Dice, in mm: the liver's in published work.
const TOLERANCE_MM: f64 = 2.0;

/// Compares volumes of which each slice was predicted and each voxel's truth is known; the others are left out.
pub(crate) fn native_results(
    masks: &NativeMasks,
    store: &EvaluationSlices,
    (rows, results): (&[usize], &[SliceResult]),
) -> Result<NativeResults> {
    let case_of = |row: usize| store.records()[row].case.as_str();
    let mut cases: BTreeMap<&str, Vec<&SliceResult>> = rows.iter().map(|&row| (case_of(row), Vec::new())).collect();
    for result in results {
        cases.entry(case_of(result.row)).or_default().push(result);
    }
    let (mut per_volume, mut left_out) = (Vec::new(), 0);
    for (case, slices) in cases {
        let all = store.records().iter().filter(|record| record.case == case).count();
        let pair = if slices.len() == all {
            let predicted: Vec<u8> = slices.iter().flat_map(|slice| unpack(&slice.mask, store.slice_size())).collect();
            masks.pair(case, &predicted)?
        } else {
            None
        };
        match pair {
            Some(pair) => per_volume.push(compared(case, &pair).with_context(|| format!("case '{case}'"))?),
            None => left_out += 1,
        }
    }
    let over = |of: fn(&NativeVolume) -> Option<f64>| mean_if_all(per_volume.iter().map(of));
    Ok(NativeResults {
        volumes: per_volume.len(),
        left_out,
        tolerance_mm: TOLERANCE_MM,
        dice: mean(per_volume.iter().map(|volume| volume.dice)),
        surface_dice: over(|volume| volume.surface_dice),
        hd95_mm: over(|volume| volume.hd95_mm),
        assd_mm: over(|volume| volume.assd_mm),
        per_volume,
    })
}

fn compared(case: &str, pair: &NativePair) -> Result<NativeVolume> {
    let view = |voxels| VolumeView::new(voxels, pair.shape, pair.spacing_mm);
    let found = volume_metrics(view(&pair.prediction)?, view(&pair.truth)?, TOLERANCE_MM);
    let in_mm = |value| pair.spacing_valid.then_some(value);
    Ok(NativeVolume {
        case: case.into(),
        dice: found.dice,
        surface_dice: in_mm(found.nsd),
        hd95_mm: in_mm(found.hd95_mm),
        assd_mm: in_mm(found.assd_mm),
    })
}
