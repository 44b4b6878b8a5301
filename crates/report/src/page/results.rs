//! What the evaluation found: one section per split, the legend once.

use maud::{Markup, html};

use super::{evaluate, figure, not_there_yet};
use crate::evaluation::{Evaluation, Overlay};
use crate::run::Run;
use run_record::{BlindBoxResults, BoxResults, PictureGroup, annotators_time};

pub fn sections(run: &Run) -> Markup {
    html! {
        @if run.evaluations.is_empty() {
            section { h2 { "Results" } (not_there_yet(&evaluate(run, None))) }
        } @else {
            @for evaluation in &run.evaluations { (section(run, evaluation)) }
            (legend(run))
        }
    }
}

fn section(run: &Run, evaluation: &Evaluation) -> Markup {
    let results = &evaluation.results;
    html! {
        section {
            h2 {
                "Results: " (results.split)
                @if results.dataset != results.split { span class="set" { " data set " (results.dataset) } }
            }
            (tiles(run, evaluation))
            @if results.split == "validation" {
                p class="warning" { "These slices chose the checkpoint: development data, and no result." }
            }
            p { "Labels that training read: " b { (run.record.label_budget) } (run.record.label_budget.time()) "." }
            (verdict(run, evaluation))
            (table(run, evaluation))
            (steps(run, evaluation))
            (counts(run, evaluation))
            (volumes(run, evaluation))
            (native(evaluation))
            (overlays(run, evaluation))
        }
    }
}

/// The numbers that count, large.
fn tiles(run: &Run, evaluation: &Evaluation) -> Markup {
    let (counted, target) = (&evaluation.results.cam_box, run.target());
    let tiles = [
        ("Dice", "all slices".to_owned(), counted.dice_all, 3),
        ("Dice", format!("{target} slices"), counted.dice_liver, 3),
        ("Dice", "volumes".to_owned(), counted.dice_volume, 3),
        ("HD95", format!("{target} slices, pixels"), counted.hd95_px, 1),
    ];
    html! {
        div class="tiles" {
            @for (name, set, value, decimals) in tiles {
                div class="tile" {
                    div class="name" { (name) }
                    div class="value" { (figure(value, decimals)) }
                    div class="set" { (set) }
                }
            }
        }
    }
}

/// On the volumes' own voxels, where that was asked for.
fn native(evaluation: &Evaluation) -> Markup {
    let Some(native) = &evaluation.results.native else { return html! {} };
    let surface = format!("Surface Dice at {} mm", native.tolerance_mm);
    html! {
        h3 { "On the volumes' own voxels" }
        div class="scroll" {
            table class="results" {
                thead { tr { th {} th { "Dice" } th { (surface) } th { "HD95" span class="set" { "mm" } } th { "ASSD" span class="set" { "mm" } } } }
                tbody {
                    @for volume in &native.per_volume {
                        tr {
                            td { (volume.case) }
                            td { (figure(Some(volume.dice), 4)) }
                            td { (figure(volume.surface_dice, 4)) }
                            td { (figure(volume.hd95_mm, 2)) }
                            td { (figure(volume.assd_mm, 2)) }
                        }
                    }
                    tr class="counts" {
                        td { "Mean" }
                        td { (figure(native.dice, 4)) }
                        td { (figure(native.surface_dice, 4)) }
                        td { (figure(native.hd95_mm, 2)) }
                        td { (figure(native.assd_mm, 2)) }
                    }
                }
            }
        }
        @if native.left_out > 0 {
            p { (native.left_out) " left out: not every slice was predicted, or the truth of some voxels is not known." }
        }
    }
}

/// A CAM that does not beat the whole image as box has not earned its cost.
fn verdict(run: &Run, evaluation: &Evaluation) -> Markup {
    let results = &evaluation.results;
    // Without a classifier there is no CAM.
    let control = results.control_whole_image.as_ref().filter(|_| results.classifier.is_some());
    let whole = control.and_then(|whole| whole.dice_liver);
    let (Some(cam), Some(whole)) = (results.cam_box.dice_liver, whole) else {
        return html! {};
    };
    html! {
        @if cam <= whole {
            p class="warning" {
                "The CAM's boxes do not beat the whole image as box (Dice on " (run.target()) " slices " (format!("{cam:.3}")) " against "
                (format!("{whole:.3}")) "): on this split the CAM has not earned its cost."
            }
        }
    }
}

/// Cells of a row: empty where the row has no such figure, `Some(None)` where it is not available.
type Cells = [Option<Option<f64>>; 7];

fn all_cells(row: &BoxResults) -> Cells {
    [row.dice_all, row.dice_liver, row.dice_volume, row.hd_px, row.hd95_px, row.hd95_mm, row.box_iou].map(Some)
}

fn blind_cells(row: &BlindBoxResults) -> Cells {
    [Some(row.dice_all), Some(row.dice_liver), None, None, None, None, None]
}

fn liver_cell(dice: Option<f64>) -> Cells {
    [None, Some(dice), None, None, None, None, None]
}

fn table(run: &Run, evaluation: &Evaluation) -> Markup {
    let results = &evaluation.results;
    let target_slices = format!("{} slices", run.target());
    let takes_prompts = takes_prompts(evaluation);
    let columns = [
        ("Dice", "all slices"),
        ("Dice", &target_slices),
        ("Dice", "volumes"),
        ("HD", &format!("px, {target_slices}")),
        ("HD95", &format!("px, {target_slices}")),
        ("HD95", &format!("mm, {target_slices}")),
        ("Box IoU", &target_slices),
    ];
    let oracle = format!("Oracle box (true box + {} px)", results.oracle_margin_px);
    let by_hand = results
        .oracle_box_seconds
        .filter(|&seconds| seconds > 0.0)
        .map_or_else(String::new, |seconds| format!(". Drawing its boxes: {}", annotators_time(seconds)));
    let by_hand = format!("With ground truth as prompt: never counts{by_hand}");
    let pretrained = results.pretrained_weights.as_ref();
    let (head, prediction) = match (takes_prompts, &results.classifier) {
        (false, _) => ("", "Prediction"),
        (true, None) => ("Prompt", "Whole image as box"),
        (true, Some(_)) => ("Prompt", "CAM box"),
    };
    let columns = &columns[..if takes_prompts { 7 } else { 6 }];
    let mut counted = all_cells(&results.cam_box);
    if !takes_prompts {
        counted[6] = None;
    }
    html! {
        div class="scroll" {
            table class="results" {
                thead {
                    tr { th { (head) } @for (name, set) in columns { th { (name) span class="set" { (set) } } } }
                }
                tbody {
                    (row(prediction, Some(counted), "counts"))
                    (row("Control: whole image as box", results.control_whole_image.as_ref().map(blind_cells), ""))
                    (row("Control: central half as box", results.control_central_half.as_ref().map(blind_cells), ""))
                    (row("Control: pretrained weights, whole image as box", pretrained.map(|p| liver_cell(p.whole_image_dice_liver)), ""))
                }
                @if takes_prompts {
                    tbody class="oracle" {
                        tr { th class="group" colspan="8" { (by_hand) } }
                        (row(&oracle, results.oracle_box.as_ref().map(all_cells), ""))
                        (row("Control: pretrained weights, oracle box", pretrained.map(|p| liver_cell(p.oracle_dice_liver)), ""))
                    }
                }
            }
        }
    }
}

/// Whether the segmenter takes prompts: rows that compare them, and their words, stand only then.
fn takes_prompts(evaluation: &Evaluation) -> bool {
    evaluation.results.oracle_box.is_some()
}

/// Nothing where the evaluation has no such row.
fn row(name: &str, cells: Option<Cells>, class: &str) -> Markup {
    let decimals = [3, 3, 3, 2, 2, 2, 3];
    html! {
        @if let Some(cells) = cells {
            tr class=[(!class.is_empty()).then_some(class)] {
                th { (name) }
                @for (cell, decimals) in cells.into_iter().zip(decimals) {
                    td { @if let Some(value) = cell { (figure(value, decimals)) } }
                }
            }
        }
    }
}

/// What each step of the inference gains, and what it costs.
fn steps(run: &Run, evaluation: &Evaluation) -> Markup {
    let (target_slices, steps) = (format!("{} slices", run.target()), &evaluation.results.steps);
    html! {
        @if !steps.is_empty() {
            h3 { "The prediction, step by step" }
            div class="scroll" {
                table class="results" {
                    thead {
                        tr {
                            th { "After the step" }
                            th { "Dice" span class="set" { "all slices" } }
                            th { "Dice" span class="set" { (target_slices) } }
                            th { "Dice" span class="set" { "volumes" } }
                            th { "False positive" span class="set" { "slices without " (run.target()) } }
                            th { "Missed" span class="set" { (target_slices) } }
                            th { "Time" span class="set" { "ms a slice, the step alone" } }
                        }
                    }
                    tbody {
                        @for step in steps {
                            tr {
                                th { (step.name) }
                                @for value in [step.dice_all, step.dice_liver, step.dice_volume] { td { (figure(value, 3)) } }
                                td { (step.false_positive) }
                                td { (step.missed) }
                                td { (figure(step.milliseconds_per_slice, 1)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn counts(run: &Run, evaluation: &Evaluation) -> Markup {
    let (target, results) = (run.target(), &evaluation.results);
    let counts = &results.counts;
    html! {
        ul class="facts" {
            @if let Some(classifier) = &results.classifier {
                li { "classifier: accuracy " b { (figure(Some(classifier.accuracy), 3)) } ", AUC " b { (figure(classifier.auc, 3)) } }
            }
            li { "slices: " b { (counts.slices) } ", with " (target) ": " b { (counts.liver_slices) } }
            @if counts.left_out > 0 {
                li { "slices that nobody has annotated, predicted and not compared: " b { (counts.left_out) } }
            }
            li { (target) " slices with an empty prediction: " b { (counts.missed) } }
            li { "slices without " (target) ", but with a prediction: " b { (counts.false_positive) } }
            @if results.classifier.is_some() {
                li { "empty CAMs: " b { (counts.empty_cam) } " (the box was the central half of the image)" }
            }
        }
    }
}

fn volumes(run: &Run, evaluation: &Evaluation) -> Markup {
    let volumes = &evaluation.results.per_volume;
    html! {
        @if !volumes.is_empty() {
            details {
                summary { "Volumes, one by one (" (volumes.len()) ")" }
                div class="scroll" {
                    table class="results" {
                        thead {
                            tr {
                                th { "Case" }
                                th { "Slices" }
                                th { (run.target()) " slices" }
                                th { "Dice" span class="set" { "volume" } }
                                th { "Dice" span class="set" { (run.target()) " slices" } }
                            }
                        }
                        tbody {
                            @for volume in volumes {
                                tr {
                                    th { (volume.case) }
                                    td { (volume.slices) }
                                    td { (volume.liver_slices) }
                                    td { (figure(Some(volume.dice_volume), 3)) }
                                    td { (figure(volume.dice_liver, 3)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn overlays(run: &Run, evaluation: &Evaluation) -> Markup {
    let has_classifier = evaluation.results.classifier.is_some();
    let groups = [(PictureGroup::Worst, "Worst"), (PictureGroup::Median, "Median"), (PictureGroup::Best, "Best")];
    html! {
        @match &evaluation.overlays {
            Some(overlays) => {
                @for (group, name) in groups {
                    @let members: Vec<&Overlay> = overlays.iter().filter(|overlay| overlay.record.group == group).collect();
                    @for members in members.chunk_by(|a, b| a.record.failed == b.record.failed) {
                        h3 { (name) " slices" @if let Some(failed) = members[0].record.failed { ", what failed: " (failed.name()) } }
                        div class="overlays" { @for overlay in members { (picture(overlay, has_classifier)) } }
                    }
                }
            }
            None => {
                h3 { "Slices" }
                (not_there_yet(&evaluate(run, Some(evaluation))))
            }
        }
    }
}

fn picture(overlay: &Overlay, has_classifier: bool) -> Markup {
    let record = &overlay.record;
    html! {
        figure {
            @match &overlay.picture {
                Some(picture) => { img src=(picture) alt={ "Slice " (record.slice) " with prediction and truth" }; }
                None => { div class="missing picture" { "picture not there: " (record.file) } }
            }
            figcaption {
                b { (record.slice) }
                span { "Dice " (figure(Some(record.dice), 3)) }
                @if has_classifier { span { "presence " (figure(Some(record.presence), 2)) } }
                @if !record.note.is_empty() { span { (record.note) } }
            }
        }
    }
}

fn legend(run: &Run) -> Markup {
    let target = run.target();
    let takes_prompts = run.evaluations.iter().any(takes_prompts);
    html! {
        section class="legend" {
            h2 { "How to read this" }
            dl class="colours" {
                div { dt { span class="patch ct" {} "grey" } dd { "the CT slice, in its window" } }
                @if takes_prompts {
                    div { dt { span class="patch heat" {} "warm tint" } dd { "CAM: where the classifier sees " (target) } }
                    div { dt { span class="patch box" {} "yellow" } dd { "box around the CAM, the prompt" } }
                }
                div { dt { span class="patch mask" {} "green" } dd { "outline of the predicted mask" } }
                div { dt { span class="patch truth" {} "red" } dd { "outline of the true mask" } }
            }
            ul {
                li {
                    b { "All slices" } ": every slice of the split's patients. An empty prediction on a slice without " (target)
                    " is Dice 1, any other prediction there is Dice 0. " "The " b { (target) " slices" } " are those whose true mask is not empty. "
                    b { "Volumes" } ": pixels of a whole volume counted together, then the mean over volumes."
                }
                li {
                    b { "HD" } " is the largest distance between the two outlines, " b { "HD95" } " the larger of the two 95th "
                    "percentiles, as MONAI defines them; smaller is better. Where exactly one mask is empty, the distance is the "
                    "image's diagonal: nothing is left out."
                    @if takes_prompts { " " b { "Box IoU" } " compares the prompt's box with the true one." }
                }
                @if takes_prompts {
                    li {
                        "Only the " b { "CAM box" } " row counts: it is made without ground truth. Rows with an "
                        b { "oracle box" } " use the true mask for their prompt; they show what a perfect prompt would give."
                    }
                }
                li {
                    "Data on which a checkpoint, a threshold or an option was chosen is " b { "development data" }
                    ": its figures are no result. The pretrained weights may have seen public data in a training of their own "
                    "(those of LiteMedSAM perhaps LiTS), which bears on all rows, the controls with pretrained weights included."
                }
                li {
                    "What failed in a slice, the first that fits: " b { "presence" } ", one of the two masks is empty and the other is not; "
                    @if takes_prompts {
                        b { "cam" } ", box IoU below 0.5 and Dice below 0.9; " b { "box" } ", the true box would give a Dice at least 0.03 "
                        "higher; " b { "mask" } ", it would not."
                    } @else {
                        b { "mask" } ", neither is empty."
                    }
                }
                li {
                    sup { "†" } " " b { "n/a" } ": undefined (no slice with " (target) ", a single class) or not to be trusted (millimetres "
                    "where the volumes' spacing is nominal) or not measured (time of the encoder, with kept embeddings)."
                }
            }
        }
    }
}
