//! What the evaluation found: one section per split, the legend once.

use maud::{Markup, html};

use super::{details, evaluate, figure, not_there_yet};
use crate::evaluation::{Counts, Evaluation, Figure, Group, Overlay, Prompted};
use crate::run::Run;

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
    html! {
        section {
            h2 {
                "Results: " (evaluation.split)
                @if let Some(dataset) = evaluation.dataset.as_ref().filter(|name| **name != evaluation.split) { span class="set" { " data set " (dataset) } }
            }
            (tiles(run, evaluation))
            @if evaluation.split == "validation" {
                p class="warning" { "These slices chose the checkpoint: development data, and no result." }
            }
            (verdict(run, evaluation))
            (table(run, evaluation))
            (steps(run, evaluation))
            (counts(run, evaluation))
            @if !evaluation.per_volume.is_empty() {
                details {
                    summary { "Volumes, one by one (" (evaluation.per_volume.len()) ")" }
                    (details::table(&evaluation.per_volume))
                }
            }
            (overlays(run, evaluation))
        }
    }
}

/// The numbers that count, large.
fn tiles(run: &Run, evaluation: &Evaluation) -> Markup {
    let Some(cam) = &evaluation.cam_box else { return html! {} };
    let target = run.target();
    let tiles = [
        ("Dice", "all slices".to_owned(), cam.dice_all, 3),
        ("Dice", format!("{target} slices"), cam.dice_liver, 3),
        ("Dice", "volumes".to_owned(), cam.dice_volume, 3),
        ("HD95", format!("{target} slices, pixels"), cam.hd95_px, 1),
    ];
    html! {
        div class="tiles" {
            @for (name, set, value, decimals) in tiles.into_iter().filter(|tile| tile.2 != Figure::Absent) {
                div class="tile" {
                    div class="name" { (name) }
                    div class="value" { (figure(value, decimals)) }
                    div class="set" { (set) }
                }
            }
        }
    }
}

/// A CAM that does not beat the whole image as box has not earned its cost.
fn verdict(run: &Run, evaluation: &Evaluation) -> Markup {
    let dice = |prompted: Option<&Prompted>| prompted?.dice_liver.value();
    let whole = evaluation.control_whole_image.as_ref();
    let (Some(cam), Some(whole)) = (dice(evaluation.cam_box.as_ref()), dice(whole)) else {
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

fn table(run: &Run, evaluation: &Evaluation) -> Markup {
    let target_slices = format!("{} slices", run.target());
    let columns = [
        ("Dice", "all slices"),
        ("Dice", &target_slices),
        ("Dice", "volumes"),
        ("HD", &format!("px, {target_slices}")),
        ("HD95", &format!("px, {target_slices}")),
        ("HD95", &format!("mm, {target_slices}")),
        ("Box IoU", &target_slices),
    ];
    let pretrained = |dice_liver| Prompted { dice_liver, ..Prompted::default() };
    let pretrained_oracle = evaluation.untouched_weights.as_ref().map(|found| pretrained(found.oracle_dice_liver));
    let pretrained_whole = evaluation.untouched_weights.as_ref().map(|found| pretrained(found.whole_image_dice_liver));
    let oracle = match evaluation.oracle_margin_px.value() {
        Some(margin) => format!("Oracle box (true box + {margin} px)"),
        None => "Oracle box (true box)".into(),
    };
    html! {
        div class="scroll" {
            table class="results" {
                thead {
                    tr { th { "Prompt" } @for (name, set) in columns { th { (name) span class="set" { (set) } } } }
                }
                tbody {
                    (row(run, evaluation, "CAM box", evaluation.cam_box.as_ref(), "counts"))
                    (row(run, evaluation, "Control: whole image as box", evaluation.control_whole_image.as_ref(), ""))
                    @if evaluation.control_central_half.is_some() {
                        (row(run, evaluation, "Control: central half as box", evaluation.control_central_half.as_ref(), ""))
                    }
                    @if pretrained_whole.as_ref().is_some_and(|row| row.dice_liver != Figure::Absent) {
                        (row(run, evaluation, "Control: pretrained weights, whole image as box", pretrained_whole.as_ref(), ""))
                    }
                }
                tbody class="oracle" {
                    tr { th class="group" colspan="8" { "With ground truth as prompt: never counts" } }
                    (row(run, evaluation, &oracle, evaluation.oracle_box.as_ref(), ""))
                    (row(run, evaluation, "Control: pretrained weights, oracle box", pretrained_oracle.as_ref(), ""))
                }
            }
        }
    }
}

fn row(run: &Run, evaluation: &Evaluation, name: &str, result: Option<&Prompted>, class: &str) -> Markup {
    html! {
        tr class=[(!class.is_empty()).then_some(class)] {
            th { (name) }
            @match result {
                Some(result) => {
                    @for (value, decimals) in [
                        (result.dice_all, 3),
                        (result.dice_liver, 3),
                        (result.dice_volume, 3),
                        (result.hd_px, 2),
                        (result.hd95_px, 2),
                        (result.hd95_mm, 2),
                        (result.box_iou, 3),
                    ] { td { (figure(value, decimals)) } }
                }
                None => { td class="missing" colspan="7" { "Not there yet: run " code { (evaluate(run, Some(evaluation))) } } }
            }
        }
    }
}

/// What each step of the inference gains, and what it costs.
fn steps(run: &Run, evaluation: &Evaluation) -> Markup {
    let target_slices = format!("{} slices", run.target());
    let number = |count: Option<u64>| count.map_or(Figure::Absent, |count| Figure::Value(count as f64));
    html! {
        @if !evaluation.steps.is_empty() {
            h3 { "CAM box, step by step" }
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
                        @for step in &evaluation.steps {
                            tr {
                                th { (step.name) }
                                @for (value, decimals) in [
                                    (step.dice_all, 3),
                                    (step.dice_liver, 3),
                                    (step.dice_volume, 3),
                                    (number(step.false_positive), 0),
                                    (number(step.missed), 0),
                                    (step.milliseconds_per_slice, 1),
                                ] { td { (figure(value, decimals)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn counts(run: &Run, evaluation: &Evaluation) -> Markup {
    let target = run.target();
    html! {
        ul class="facts" {
            @if let Some(classifier) = &evaluation.classifier {
                li { "classifier: accuracy " b { (figure(classifier.accuracy, 3)) } ", AUC " b { (figure(classifier.auc, 3)) } }
            }
            @if let Some(Counts { slices, liver_slices, empty_cam, missed, false_positive }) = &evaluation.counts {
                li { "slices: " b { (slices) } ", with " (target) ": " b { (liver_slices) } }
                @if let Some(missed) = missed { li { (target) " slices with an empty prediction: " b { (missed) } } }
                @if let Some(found) = false_positive { li { "slices without " (target) ", but with a prediction: " b { (found) } } }
                @if let Some(empty) = empty_cam { li { "empty CAMs: " b { (empty) } " (the box was the central half of the image)" } }
            }
        }
    }
}

fn overlays(run: &Run, evaluation: &Evaluation) -> Markup {
    let groups = [(Group::Worst, "Worst"), (Group::Median, "Median"), (Group::Best, "Best")];
    html! {
        @match &evaluation.overlays {
            Some(overlays) => {
                @for (group, name) in groups {
                    @let members: Vec<&Overlay> = overlays.iter().filter(|overlay| overlay.group == group).collect();
                    @for members in members.chunk_by(|a, b| a.failed == b.failed) {
                        h3 { (name) " slices" @if let Some(failed) = &members[0].failed { ", what failed: " (failed) } }
                        div class="overlays" { @for overlay in members { (picture(overlay)) } }
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

fn picture(overlay: &Overlay) -> Markup {
    html! {
        figure {
            @match &overlay.picture {
                Some(picture) => { img src=(picture) alt={ "Slice " (overlay.slice) " with prediction and truth" }; }
                None => { div class="missing picture" { "picture not there: " (overlay.file) } }
            }
            figcaption {
                b { (overlay.slice) }
                @if overlay.dice != Figure::Absent { span { "Dice " (figure(overlay.dice, 3)) } }
                @if overlay.presence != Figure::Absent { span { "presence " (figure(overlay.presence, 2)) } }
                @if let Some(note) = overlay.note.as_ref().filter(|note| !note.is_empty()) { span { (note) } }
            }
        }
    }
}

fn legend(run: &Run) -> Markup {
    let target = run.target();
    html! {
        section class="legend" {
            h2 { "How to read this" }
            dl class="colours" {
                div { dt { span class="patch ct" {} "grey" } dd { "the CT slice, in its window" } }
                div { dt { span class="patch heat" {} "warm tint" } dd { "CAM: where the classifier sees " (target) } }
                div { dt { span class="patch box" {} "yellow" } dd { "box around the CAM, the prompt" } }
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
                    "image's diagonal: nothing is left out. " b { "Box IoU" } " compares the prompt's box with the true one."
                }
                li {
                    "Only the " b { "CAM box" } " row counts: it is made without ground truth. Rows with an "
                    b { "oracle box" } " use the true mask for their prompt; they show what a perfect prompt would give."
                }
                li {
                    "Data on which a checkpoint, a threshold or an option was chosen is " b { "development data" }
                    ": its figures are no result. The pretrained weights may have seen public data in a training of their own "
                    "(those of LiteMedSAM perhaps LiTS), which bears on all rows, the controls with pretrained weights included."
                }
                li {
                    "What failed in a slice, the first that fits: " b { "presence" } ", one of the two masks is empty and the other is not; "
                    b { "cam" } ", box IoU below 0.5 and Dice below 0.9; " b { "box" } ", the true box would give a Dice at least 0.03 "
                    "higher; " b { "mask" } ", it would not."
                }
                li {
                    sup { "†" } " " b { "n/a" } ": undefined (no slice with " (target) ", a single class) or not to be trusted (millimetres "
                    "where the volumes' spacing is nominal) or not measured (time of the encoder, with kept embeddings)."
                }
            }
        }
    }
}
