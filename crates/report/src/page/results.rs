//! What the evaluation found: one section per split, the legend once.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::{details, evaluate, figure, not_there_yet};
use crate::evaluation::{Counts, Evaluation, Figure, Group, Overlay, Prompted};
use crate::run::Run;

pub fn sections(run: &Run) -> Markup {
    html! {
        @if run.evaluations.is_empty() {
            section { h2 { "Results" } (not_there_yet(&evaluate(run))) }
        } @else {
            @for evaluation in &run.evaluations { (section(run, evaluation)) }
            (legend())
        }
    }
}

fn section(run: &Run, evaluation: &Evaluation) -> Markup {
    html! {
        section {
            h2 { "Results: " (evaluation.split) }
            (tiles(evaluation))
            (verdict(evaluation))
            (table(run, evaluation))
            (counts(evaluation))
            (per_volume(&evaluation.per_volume))
            (overlays(run, evaluation))
        }
    }
}

/// The numbers that count, large.
fn tiles(evaluation: &Evaluation) -> Markup {
    let Some(cam) = &evaluation.cam_box else { return html! {} };
    let tiles = [
        ("Dice", "all slices", cam.dice_all, 3),
        ("Dice", "liver slices", cam.dice_liver, 3),
        ("Dice", "volumes", cam.dice_volume, 3),
        ("HD95", "liver slices, pixels", cam.hd95_px, 1),
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
fn verdict(evaluation: &Evaluation) -> Markup {
    let dice = |prompted: Option<&Prompted>| prompted?.dice_liver.value();
    let whole = evaluation.control_whole_image.as_ref();
    let (Some(cam), Some(whole)) = (dice(evaluation.cam_box.as_ref()), dice(whole)) else {
        return html! {};
    };
    html! {
        @if cam <= whole {
            p class="warning" {
                "The CAM's boxes do not beat the whole image as box (Dice on liver slices " (format!("{cam:.3}")) " against "
                (format!("{whole:.3}")) "): on this split the CAM has not earned its cost."
            }
        }
    }
}

fn table(run: &Run, evaluation: &Evaluation) -> Markup {
    let columns = [
        ("Dice", "all slices"),
        ("Dice", "liver slices"),
        ("Dice", "volumes"),
        ("HD", "px, liver slices"),
        ("HD95", "px, liver slices"),
        ("HD95", "mm, liver slices"),
        ("Box IoU", "liver slices"),
    ];
    let untouched = evaluation.untouched_weights.as_ref();
    let untouched = untouched.map(|found| Prompted { dice_liver: found.oracle_dice_liver, ..Prompted::default() });
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
                    (row(run, "CAM box", evaluation.cam_box.as_ref(), "counts"))
                    (row(run, "Control: whole image as box", evaluation.control_whole_image.as_ref(), ""))
                }
                tbody class="oracle" {
                    tr { th class="group" colspan="8" { "With ground truth as prompt: never counts" } }
                    (row(run, &oracle, evaluation.oracle_box.as_ref(), ""))
                    (row(run, "Control: untouched weights, oracle box", untouched.as_ref(), ""))
                }
            }
        }
    }
}

fn row(run: &Run, name: &str, result: Option<&Prompted>, class: &str) -> Markup {
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
                None => { td class="missing" colspan="7" { "Not there yet: run " code { (evaluate(run)) } } }
            }
        }
    }
}

fn counts(evaluation: &Evaluation) -> Markup {
    html! {
        ul class="facts" {
            @if let Some(classifier) = &evaluation.classifier {
                li { "Classifier: accuracy " b { (figure(classifier.accuracy, 3)) } ", AUC " b { (figure(classifier.auc, 3)) } }
            }
            @if let Some(Counts { slices, liver_slices, empty_cam, missed, false_positive }) = &evaluation.counts {
                li { b { (slices) } " slices, " b { (liver_slices) } " of them with liver" }
                @if let Some(missed) = missed { li { b { (missed) } " liver slices with an empty prediction" } }
                @if let Some(found) = false_positive { li { b { (found) } " slices without liver, but with a prediction" } }
                @if let Some(empty) = empty_cam { li { b { (empty) } " empty CAMs (the central half of the image was the box)" } }
            }
        }
    }
}

/// Rows of any keys: the columns are all keys in order of appearance.
fn per_volume(volumes: &[Map<String, Value>]) -> Markup {
    let rows: Vec<Vec<(String, &Value)>> = volumes.iter().map(details::flattened).collect();
    let mut columns: Vec<&str> = Vec::new();
    for (key, _) in rows.iter().flatten() {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    let cell = |value: &Value| match value.as_f64() {
        Some(number) if value.is_f64() => format!("{number:.3}"),
        _ => details::text(value),
    };
    html! {
        @if !rows.is_empty() {
            details {
                summary { (rows.len()) " volumes, one by one" }
                div class="scroll" {
                    table {
                        thead { tr { @for column in &columns { th { (column) } } } }
                        tbody {
                            @for row in &rows {
                                tr {
                                    @for column in &columns {
                                        td { @if let Some((_, value)) = row.iter().find(|(key, _)| key == column) { (cell(value)) } }
                                    }
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
    let groups = [(Group::Worst, "Worst"), (Group::Median, "Median"), (Group::Best, "Best")];
    html! {
        @match &evaluation.overlays {
            Some(overlays) => {
                @for (group, name) in groups {
                    @let members = overlays.iter().filter(|overlay| overlay.group == group);
                    @if members.clone().next().is_some() {
                        h3 { (name) " slices" }
                        div class="overlays" { @for overlay in members { (picture(overlay)) } }
                    }
                }
            }
            None => {
                h3 { "Slices" }
                (not_there_yet(&evaluate(run)))
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
                @if let Some(note) = &overlay.note { span { (note) } }
            }
        }
    }
}

fn legend() -> Markup {
    html! {
        section class="legend" {
            h2 { "How to read this" }
            dl class="colours" {
                div { dt { span class="patch ct" {} "grey" } dd { "the CT slice, in its window" } }
                div { dt { span class="patch heat" {} "heat" } dd { "CAM: where the classifier sees liver" } }
                div { dt { span class="patch box" {} "yellow" } dd { "box around the CAM, the prompt" } }
                div { dt { span class="patch mask" {} "green" } dd { "outline of the predicted mask" } }
                div { dt { span class="patch truth" {} "red" } dd { "outline of the true mask" } }
            }
            ul {
                li {
                    b { "All slices" } ": every slice of the split's patients. An empty prediction on a slice without liver is "
                    "Dice 1, any other prediction there is Dice 0. " b { "Liver slices" } ": those whose true mask is not empty. "
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
                    sup { "†" } " " b { "n/a" } ": undefined (no liver slice, a single class) or not to be trusted (millimetres "
                    "where the volumes' spacing is nominal)."
                }
            }
        }
    }
}
