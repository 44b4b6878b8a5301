//! How training went: losses by step, validation by epoch.

use maud::{Markup, html};

use super::not_there_yet;
use crate::chart::{Chart, Line, Style, YRange};
use crate::run::Run;
use run_record::{Metrics, RowKind};

const LOSSES: [(&str, &str); 3] =
    [("loss_cls", "Classifier loss"), ("loss_seg", "Segmentation loss"), ("loss_score", "Mask score loss")];
const VALIDATION: [(&str, &str); 3] = [("val_dice", "Dice"), ("val_box_iou", "box IoU"), ("val_auc", "presence AUC")];

pub fn section(run: &Run) -> Markup {
    html! {
        section {
            h2 { "Training" }
            @match &run.metrics {
                Some(metrics) => {
                    div class="charts" {
                        @for chart in charts(metrics) { (chart.render()) }
                    }
                    p class="note" {
                        "Faint lines are single steps, cut off at the top of the axis. Validation slices come from the "
                        "training patients; the checkpoint with the best validation Dice is kept."
                    }
                    (not_finite(metrics))
                    (epoch_table(metrics))
                }
                None => (not_there_yet("cargo xtask train (it writes metrics.csv into the run)")),
            }
        }
    }
}

/// Validation first; charts without a value are left out.
fn charts(metrics: &Metrics) -> Vec<Chart> {
    let line = |kind, (column, name): (&str, &str), style| {
        let points = metrics.series(kind, column);
        (!points.is_empty()).then(|| Line { name: name.to_owned(), points, style })
    };
    let marks = |kind| {
        let phases = metrics.phases(kind);
        if phases.len() > 1 { phases } else { Vec::new() }
    };
    let by_step = |column: (&str, &str), y_label, style| {
        let line = line(RowKind::Step, column, style)?;
        Some(Chart {
            title: column.1.to_owned(),
            x_label: "step",
            y_label,
            x_range: metrics.range(RowKind::Step),
            y_range: YRange::Values,
            lines: vec![line],
            marks: marks(RowKind::Step),
            highlight: None,
        })
    };
    let validation: Vec<Line> =
        VALIDATION.iter().filter_map(|column| line(RowKind::Epoch, *column, Style::Points)).collect();
    let validation = (!validation.is_empty()).then(|| Chart {
        title: "Validation".into(),
        x_label: "epoch, phases one after the other",
        y_label: "Dice, IoU, AUC",
        x_range: metrics.range(RowKind::Epoch),
        y_range: YRange::Unit,
        highlight: best_epoch(metrics),
        lines: validation,
        marks: marks(RowKind::Epoch),
    });
    let losses = LOSSES.into_iter().filter_map(|column| by_step(column, "loss", Style::Smoothed));
    // A constant learning rate is a number of the configuration and no picture.
    let learning_rate = by_step(("lr", "Learning rate"), "learning rate", Style::Plain)
        .filter(|chart| chart.lines[0].points.windows(2).any(|pair| pair[0].1 != pair[1].1));
    validation.into_iter().chain(losses).chain(learning_rate).collect()
}

fn best_epoch(metrics: &Metrics) -> Option<(f64, f64, String)> {
    let dice = metrics.series(RowKind::Epoch, "val_dice");
    // The first of equals: that is the one that training keeps.
    let best = dice.into_iter().reduce(|best, point| if point.1 > best.1 { point } else { best })?;
    Some((best.0, best.1, format!("best Dice {:.3}", best.1)))
}

fn not_finite(metrics: &Metrics) -> Markup {
    let columns = LOSSES.iter().map(|(column, name)| (name, metrics.not_finite(RowKind::Step, column)));
    html! {
        @for (name, count) in columns.filter(|(_, count)| *count > 0) {
            p class="warning" { (name) ": values that are not finite, and not drawn: " (count) }
        }
    }
}

fn epoch_table(metrics: &Metrics) -> Markup {
    let there: Vec<(&str, &str)> =
        VALIDATION.into_iter().filter(|(column, _)| !metrics.series(RowKind::Epoch, column).is_empty()).collect();
    let columns: Vec<&str> = std::iter::once("epoch").chain(there.iter().map(|(column, _)| *column)).collect();
    let rows = metrics.table(RowKind::Epoch, &columns);
    let number = |value: Option<f64>, decimals| value.map_or_else(String::new, |value| format!("{value:.decimals$}"));
    html! {
        @if !rows.is_empty() {
            details {
                summary { "Validation by epoch, as a table" }
                table {
                    thead { tr { th { "phase" } th { "epoch" } @for (_, name) in &there { th { (name) } } } }
                    tbody {
                        @for (phase, values) in &rows {
                            tr {
                                th { (phase) }
                                @for (i, value) in values.iter().enumerate() {
                                    td { (number(*value, if i == 0 { 0 } else { 3 })) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
