//! Results as a person or a script reads them, on standard output.

use ct_ingest::{Check, PrepareOptions, StoreSummary, Summary, Verified, Would};
use serde_json::json;
use slice_store::{LabelCounts, WindowAt, counted};

/// What became of a preparation.
pub fn prepare(options: &PrepareOptions, summary: &Summary) {
    let store = options.store.display();
    for (case, reason) in &summary.failed {
        eprintln!("failed: {case}: {reason}");
    }
    if summary.remaining > 0 {
        println!(
            "interrupted: {} cases are whole, {} are left; run the same command again to go on",
            summary.prepared + summary.unchanged + summary.merged,
            summary.remaining
        );
        return;
    }
    for case in &summary.left {
        println!("left out: {case}: {}", why_it_leaves(summary.failed.iter().any(|(failed, _)| failed == case)));
    }
    if !summary.left.is_empty() {
        println!(
            "cases that are left out are no longer in the store's index; what was prepared of them stays in '{store}' (images, \
             masks, cases) until you delete it, and counts again when their files can be prepared"
        );
    }
    let (cases, patients, labels) = summary.counts();
    match (summary.prepared, summary.failed.len()) {
        (0, 0) if summary.left.is_empty() && summary.merged == 0 => {
            println!("nothing to do: all {} cases are in '{store}' already", summary.unchanged);
        }
        (prepared, failed) => {
            let of = |count: usize, what: &str| if count == 0 { String::new() } else { format!(", {count} {what}") };
            let (failed, left) = (of(failed, "failed"), of(summary.left.len(), "left out"));
            let merged = of(summary.merged, "copied from other stores");
            println!("{} prepared, {} unchanged{merged}{failed}{left}", counted(prepared, "case"), summary.unchanged);
        }
    }
    println!(
        "'{store}': {} of {}, {}",
        counted(cases, "case"),
        counted(patients, "patient"),
        labels.words(&options.manifest.target)
    );
}

fn why_it_leaves(has_failed: bool) -> &'static str {
    if has_failed { "it can't be prepared now" } else { "its files are no longer there" }
}

/// A table of the cases, and what would be done.
pub fn check(options: &PrepareOptions, found: &Check) {
    println!(
        "{:<18} {:<18} {:<15} {:<5} {:<20} {:<4} {:>6} {:>7} {:>6} {:>7} {:>5}  would",
        "case", "patient", "shape", "type", "spacing (mm)", "axes", "slices", "present", "absent", "unknown", "masks"
    );
    for case in &found.cases {
        let would = match &case.would {
            Would::Prepare => "prepare it".to_owned(),
            Would::Keep => "keep it".to_owned(),
            Would::Refuse(reason) => format!("refuse it: {reason}"),
        };
        match &case.found {
            None => println!("{:<18} {would}", case.case),
            Some(volume) => {
                let [x, y, z] = volume.shape;
                let [dx, dy, dz] = volume.spacing_mm;
                let LabelCounts { slices, presence, masks } = volume.labels;
                println!(
                    "{:<18} {:<18} {:<15} {:<5} {:<20} {:<4} {slices:>6} {:>7} {:>6} {:>7} {masks:>5}  {would}",
                    case.case,
                    volume.patient,
                    format!("{x}x{y}x{z}"),
                    volume.voxel_type,
                    format!("{dx:.3} {dy:.3} {dz:.3}"),
                    volume.orientation,
                    presence.present,
                    presence.absent,
                    presence.unknown
                );
                for warning in &volume.warnings {
                    println!("    warning: {warning}");
                }
            }
        }
    }
    let count = |would: fn(&Would) -> bool| found.cases.iter().filter(|case| would(&case.would)).count();
    let size = found.settings.slice_size;
    println!(
        "{} to prepare, {} to keep, {} to refuse; slices of {size} x {size} into '{}'; nothing was written",
        count(|would| matches!(would, Would::Prepare)),
        count(|would| matches!(would, Would::Keep)),
        count(|would| matches!(would, Would::Refuse(_))),
        options.store.display()
    );
    for case in &found.would_leave {
        let has_failed = found.cases.iter().any(|checked| checked.case == *case);
        println!("would be left out of the store's index: {case}: {}", why_it_leaves(has_failed));
    }
    if let Some(reason) = &found.store_refused {
        println!("nothing could be prepared: {reason}");
    }
    if found.interrupted {
        println!("interrupted: not all cases were looked at");
    }
}

/// The same as [`prepare`] for a script.
pub fn prepare_json(options: &PrepareOptions, summary: &Summary) -> serde_json::Value {
    let (cases, patients, labels) = summary.counts();
    let failed: Vec<_> =
        summary.failed.iter().map(|(case, reason)| json!({ "case": case, "reason": reason })).collect();
    json!({
        "store": options.store,
        "finished": summary.remaining == 0,
        "prepared": summary.prepared,
        "unchanged": summary.unchanged,
        "merged": summary.merged,
        "failed": failed,
        "left": summary.left,
        "remaining": summary.remaining,
        "cases": cases,
        "patients": patients,
        "slices": labels.slices,
        "presence": labels.presence,
        "masks": labels.masks,
    })
}

/// What is in a store.
pub fn summary(summary: &StoreSummary, verified: Option<&Verified>) {
    let StoreSummary { dataset, target, settings, .. } = summary;
    println!("data set      {dataset} ({target}), prepared by version {}", summary.tool_version);
    println!("checksum      {}", summary.checksum);
    println!(
        "slices        {0} x {0} pixels, HU {1} to {2}",
        settings.slice_size, settings.stored_hu[0], settings.stored_hu[1]
    );
    match (settings.window_at, summary.hu_range) {
        (_, None) => println!("              there are none"),
        (WindowAt::Load, Some([low, high])) => println!("              found {low} to {high}"),
        (WindowAt::Prepare, Some([low, high])) => {
            println!("              windowed before the resize, found {low} to {high}");
        }
    }
    println!(
        "content       {} of {}, {}",
        counted(summary.cases.len(), "case"),
        counted(summary.patients, "patient"),
        summary.labels.words(target)
    );
    if let Some(Verified { arrays: 1.., changed }) = verified {
        match changed.len() {
            0 => println!("pixels        all are what was written"),
            count => println!("pixels        {count} files are not what was written"),
        }
    }
    println!();
    println!(
        "{:<16} {:<16} {:>6} {:>7} {:>6} {:>7} {:>5} {:>14}  row, column, slice spacing (mm)",
        "case", "patient", "slices", "present", "absent", "unknown", "masks", "target pixels"
    );
    for case in &summary.cases {
        let [row, column, slice] = case.spacing_mm;
        let LabelCounts { slices, presence, masks } = case.labels;
        let trust = if case.spacing_valid { "" } else { "  not trusted" };
        println!(
            "{:<16} {:<16} {slices:>6} {:>7} {:>6} {:>7} {masks:>5} {:>14}  {row:.3}, {column:.3}, {slice:.3}{trust}",
            case.case, case.patient, presence.present, presence.absent, presence.unknown, case.target_pixels
        );
    }
    for case in &summary.left_out {
        println!(
            "{case:<16} is not in the index: its source was gone or failed; its files are still in the store's folders"
        );
    }
}

/// The same as [`summary`] for a script.
pub fn summary_json(summary: &StoreSummary, verified: Option<&Verified>) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(summary)?;
    if let Some(verified) = verified {
        value["verified"] = serde_json::to_value(verified)?;
    }
    Ok(value)
}
