//! Results for people.

use run_record::Evaluation;
use std::fmt::Write;

/// The table for people.
pub fn table(e: &Evaluation) -> String {
    let cell = |v: Option<f64>, digits: usize| v.map_or_else(|| "n/a".into(), |v| format!("{v:.digits$}"));
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} of {}: {} slices, {} with the target\n{:<34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        e.split,
        e.dataset,
        e.counts.slices,
        e.counts.liver_slices,
        "",
        "Dice all",
        "liver",
        "volume",
        "HD px",
        "HD95 px",
        "HD95 mm",
        "box IoU"
    );
    let oracle = format!("oracle box +{} px (not what counts)", e.oracle_margin_px);
    for (name, r) in [("CAM box", &e.cam_box), (oracle.as_str(), &e.oracle_box)] {
        let _ = writeln!(
            text,
            "{name:<34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            cell(r.dice_all, 4),
            cell(r.dice_liver, 4),
            cell(r.dice_volume, 4),
            cell(r.hd_px, 2),
            cell(r.hd95_px, 2),
            cell(r.hd95_mm, 2),
            cell(r.box_iou, 3)
        );
    }
    for (name, blind) in [
        ("control: whole image as box", &e.control_whole_image),
        ("control: central half as box", &e.control_central_half),
    ] {
        let _ = writeln!(text, "{name:<34}{:>9}{:>9}", cell(blind.dice_all, 4), cell(blind.dice_liver, 4));
    }
    let untouched = &e.untouched_weights;
    let _ =
        writeln!(text, "{:<34}{:>9}{:>9}", "untouched weights, oracle box", "", cell(untouched.oracle_dice_liver, 4));
    let _ = writeln!(
        text,
        "{:<34}{:>9}{:>9}",
        "untouched weights, whole image",
        "",
        cell(untouched.whole_image_dice_liver, 4)
    );
    let c = &e.counts;
    let _ = writeln!(
        text,
        "classifier: accuracy {:.4}, AUC {}; empty CAM {}, missed {}, false positive {}",
        e.classifier.accuracy,
        cell(e.classifier.auc, 4),
        c.empty_cam,
        c.missed,
        c.false_positive
    );
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
