//! Results for people.

use run_record::{Evaluation, annotators_time};
use slice_store::counted;
use std::fmt::Write;

fn left_out(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!("; {count} more were predicted and not compared: nobody has annotated them"),
    }
}

/// The table for people.
pub fn table(e: &Evaluation) -> String {
    let cell = |v: Option<f64>, digits: usize| v.map_or_else(|| "n/a".into(), |v| format!("{v:.digits$}"));
    // A segmenter without prompts has none.
    let has_boxes = e.oracle_box.is_some();
    let boxes = if has_boxes { "  box IoU" } else { "" };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} of {}: {} slices, {} with the target{}\ntrained with: {}{}\n{:<34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{boxes}",
        e.split,
        e.dataset,
        e.counts.slices,
        e.counts.liver_slices,
        left_out(e.counts.left_out),
        e.label_budget,
        e.label_budget.time(),
        "",
        "Dice all",
        "liver",
        "volume",
        "HD px",
        "HD95 px",
        "HD95 mm",
    );
    let oracle = format!("oracle box +{} px (not what counts)", e.oracle_margin_px);
    let prediction = match (has_boxes, &e.classifier) {
        (false, _) => "prediction",
        (true, None) => "whole image as box",
        (true, Some(_)) => "CAM box",
    };
    let rows = [Some((prediction, &e.cam_box)), e.oracle_box.as_ref().map(|row| (oracle.as_str(), row))];
    for (name, r) in rows.into_iter().flatten() {
        let _ = writeln!(
            text,
            "{name:<34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{}",
            cell(r.dice_all, 4),
            cell(r.dice_liver, 4),
            cell(r.dice_volume, 4),
            cell(r.hd_px, 2),
            cell(r.hd95_px, 2),
            cell(r.hd95_mm, 2),
            if has_boxes { format!("{:>9}", cell(r.box_iou, 3)) } else { String::new() }
        );
    }
    for (name, blind) in [
        ("control: whole image as box", &e.control_whole_image),
        ("control: central half as box", &e.control_central_half),
    ] {
        if let Some(blind) = blind {
            let _ = writeln!(text, "{name:<34}{:>9}{:>9}", cell(blind.dice_all, 4), cell(blind.dice_liver, 4));
        }
    }
    if let Some(pretrained) = &e.pretrained_weights {
        for (name, dice) in [
            ("pretrained weights, oracle box", pretrained.oracle_dice_liver),
            ("pretrained weights, whole image", pretrained.whole_image_dice_liver),
        ] {
            let _ = writeln!(text, "{name:<34}{:>9}{:>9}", "", cell(dice, 4));
        }
    }
    if let Some(seconds) = e.oracle_box_seconds.filter(|&seconds| seconds > 0.0) {
        let _ = writeln!(text, "drawing the oracle's boxes: {}", annotators_time(seconds));
    }
    if let Some(native) = &e.native {
        let _ = writeln!(
            text,
            "on the volumes' own voxels, {}: Dice {}, surface Dice at {} mm {}, HD95 {} mm, ASSD {} mm{}",
            counted(native.volumes, "volume"),
            cell(native.dice, 4),
            native.tolerance_mm,
            cell(native.surface_dice, 4),
            cell(native.hd95_mm, 2),
            cell(native.assd_mm, 2),
            match native.left_out {
                0 => String::new(),
                count => format!(
                    "; {count} left out: not every slice was predicted, or the truth of some voxels is not known"
                ),
            }
        );
    }
    let c = &e.counts;
    if let Some(classifier) = &e.classifier {
        let auc = cell(classifier.auc, 4);
        let _ = write!(text, "classifier: accuracy {:.4}, AUC {auc}; empty CAM {}, ", classifier.accuracy, c.empty_cam);
    }
    let _ = writeln!(text, "missed {}, false positive {}", c.missed, c.false_positive);
    let _ = writeln!(
        text,
        "{:<34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "step by step", "Dice all", "liver", "volume", "false +", "missed", "ms/slice"
    );
    for step in &e.steps {
        let _ = writeln!(
            text,
            "{:<34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            step.name,
            cell(step.dice_all, 4),
            cell(step.dice_liver, 4),
            cell(step.dice_volume, 4),
            step.false_positive,
            step.missed,
            cell(step.milliseconds_per_slice, 1)
        );
    }
    text
}
