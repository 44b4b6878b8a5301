//! The folder of a study's results: tables as Markdown, CSV, Parquet, LaTeX and JSON, curves as CSV and SVG.

use anyhow::{Result, ensure};
use polars::prelude::{Column, DataFrame, ParquetWriter};
use run_record::{Metrics, RowKind, read_json, write_whole};
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::comparison::{Entry, METRICS, entries};
use super::document::{Document, columns};
use super::experiment::Row;
use super::file::Budget;
use super::page::page;
use super::plots::{Line, plot};
use super::results::{Run, Statistic};

/// A folder is written into if it is empty, or has earlier results of this study.
pub fn check_place(folder: &Path, title: &str, overwrite: bool) -> Result<()> {
    let is_empty = !folder.exists() || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    let earlier: Option<Value> = read_json(&folder.join("results.json")).ok();
    let is_own = earlier.is_some_and(|earlier| earlier["title"] == title);
    ensure!(
        is_empty || is_own || overwrite,
        "'{}' is there already and has no earlier results of the study '{title}': name another folder with --output, or give --overwrite",
        folder.display()
    );
    Ok(())
}

/// Writes all of it anew.
pub fn write(document: &Document, folder: &Path) -> Result<()> {
    let write = |name: &str, text: &str| write_whole(&folder.join(name), text.as_bytes());
    write("table.md", &document.markdown())?;
    write("table.tex", &latex(document))?;
    let values = values(document);
    write("table.csv", &csv(&values))?;
    write_whole(&folder.join("table.parquet"), &parquet(&values)?)?;
    let mut plots = Vec::new();
    let mut drawn = |name: &str, plot: String| {
        write(&format!("{name}.svg"), &plot)?;
        plots.push(plot);
        anyhow::Ok(())
    };
    for store in 0..document.experiment.stores.len() {
        let dataset = &document.experiment.stores[store].dataset;
        let name = if store == 0 { "label-efficiency".to_owned() } else { format!("label-efficiency-{dataset}") };
        let lines = label_efficiency(document, store);
        if lines.iter().any(|line| !line.points.is_empty()) {
            let of = &document.experiment.stores[store];
            let development = if of.development { " (development data: no result)" } else { "" };
            let title = format!("Label efficiency: {dataset}{development}");
            drawn(&name, plot(&title, "labelled slices", "Dice (slices with the target)", &lines)?)?;
            write(&format!("{name}.csv"), &curve(["model", "labelled_slices", "dice_liver", "deviation"], &lines))?;
        }
    }
    let [epochs, time] = progress(document);
    if epochs.iter().any(|line| !line.points.is_empty()) {
        let y = "validation Dice";
        drawn("epochs", plot("Epoch efficiency", "epochs", y, &epochs)?)?;
        write("epochs.csv", &curve(["run", "epoch", "validation_dice", "deviation"], &epochs))?;
        drawn("time", plot("Time efficiency", "minutes of training", y, &time)?)?;
        write("time.csv", &curve(["run", "minutes", "validation_dice", "deviation"], &time))?;
    }
    write("comparison.html", &page(document, &plots, folder))?;
    // Last: a folder that has it is a study's.
    let mut json = serde_json::to_string_pretty(&document.json())?;
    json.push('\n');
    write("results.json", &json)?;
    Ok(())
}

/// One figure of one run on one data set.
struct Figure {
    model: String,
    labelled: u64,
    seed: u64,
    dataset: String,
    split: &'static str,
    development: bool,
    metric: &'static str,
    value: Option<f64>,
}

/// Labelled slices of a run, as its row says or its record.
fn labelled(row: &Row, run: &Run) -> usize {
    match row.budget {
        Some(Budget::Slices(count)) => count,
        _ => run.record.labelled.len(),
    }
}

fn values(document: &Document) -> Vec<Figure> {
    let mut all = Vec::new();
    for (row, results) in document.experiment.rows.iter().zip(&document.results) {
        for run in &results.runs {
            for (index, store) in document.experiment.stores.iter().enumerate() {
                let Some(evaluation) = &run.evaluations[index] else { continue };
                all.extend(columns(document.experiment, index).into_iter().map(|column| Figure {
                    model: row.model.key.clone(),
                    labelled: labelled(row, run) as u64,
                    seed: run.seed,
                    dataset: store.dataset.clone(),
                    split: if index == 0 { "test" } else { "all" },
                    development: store.development,
                    metric: column.key,
                    value: column.of_row(row)(evaluation),
                }));
            }
        }
    }
    all
}

fn csv(values: &[Figure]) -> String {
    let mut text = "model,labelled_slices,seed,dataset,split,development,metric,value\n".to_owned();
    for it in values {
        let value = it.value.map_or_else(String::new, |value| value.to_string());
        let (model, dataset) = (quoted(&it.model), quoted(&it.dataset));
        // Writing to a text can't fail.
        let _ = writeln!(
            text,
            "{model},{},{},{dataset},{},{},{},{value}",
            it.labelled, it.seed, it.split, it.development, it.metric
        );
    }
    text
}

/// As RFC 4180 has it.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

fn parquet(values: &[Figure]) -> Result<Vec<u8>> {
    let texts =
        |name: &str, of: fn(&Figure) -> &str| Column::new(name.into(), values.iter().map(of).collect::<Vec<_>>());
    let columns = vec![
        texts("model", |it| &it.model),
        Column::new("labelled_slices".into(), values.iter().map(|it| it.labelled).collect::<Vec<_>>()),
        Column::new("seed".into(), values.iter().map(|it| it.seed).collect::<Vec<_>>()),
        texts("dataset", |it| &it.dataset),
        texts("split", |it| it.split),
        Column::new("development".into(), values.iter().map(|it| it.development).collect::<Vec<_>>()),
        texts("metric", |it| it.metric),
        Column::new("value".into(), values.iter().map(|it| it.value).collect::<Vec<_>>()),
    ];
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut DataFrame::new(values.len(), columns)?)?;
    Ok(bytes)
}

/// Booktabs tables, one for each data set: mean over seeds, deviation, interval over patients.
fn latex(document: &Document) -> String {
    let experiment = document.experiment;
    let mut text = "% needs \\usepackage{booktabs}\n".to_owned();
    for (index, store) in experiment.stores.iter().enumerate() {
        let titles = METRICS.map(|metric| escaped(&metric.title().replace("TARGET", &experiment.stores[0].target)));
        let note = if store.development { "% development data: no result\n" } else { "" };
        let caption = if index == 0 { "test patients of" } else { "all of" };
        // Writing to a text can't fail.
        let _ = write!(
            text,
            "\n% {caption} {}\n{note}\\begin{{tabular}}{{lrrll}}\n\\toprule\nModel & Slices & Seeds & {} & {} \\\\\n\\midrule\n",
            store.dataset.replace('\n', " "),
            titles[0],
            titles[1]
        );
        for ((row, results), of) in
            experiment.rows.iter().zip(&document.results).zip(entries(experiment, &document.results, index))
        {
            let budget = row.budget.map_or_else(|| "--".to_owned(), |budget| budget.to_string());
            let cells = of.map(|entry| match entry {
                Entry::Known(cell) => {
                    let deviation = cell.sd_over_seeds.map_or_else(String::new, |sd| format!(" $\\pm$ {sd:.4}"));
                    let interval =
                        cell.interval.map_or_else(String::new, |it| format!(" [{:.4}, {:.4}]", it.low, it.high));
                    format!("{:.4}{deviation}{interval}", cell.estimate)
                }
                _ => "--".into(),
            });
            let name = escaped(&row.model.name);
            let _ = writeln!(text, "{name} & {budget} & {} & {} & {} \\\\", results.runs.len(), cells[0], cells[1]);
            if let Some(figure) = row.of_paper(index) {
                let _ = writeln!(text, "{name} (from the paper, on other data) & {budget} & & {figure} & -- \\\\");
            }
        }
        text += "\\bottomrule\n\\end{tabular}\n";
    }
    text
}

/// Text that LaTeX prints as it is.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |text, c| match c {
        '&' | '%' | '$' | '#' | '_' | '{' | '}' => text + "\\" + &c.to_string(),
        '\\' => text + "\\textbackslash{}",
        '~' => text + "\\textasciitilde{}",
        '^' => text + "\\textasciicircum{}",
        '\n' => text + " ",
        _ => text + &c.to_string(),
    })
}

/// Dice over slices with the target by labelled slices, a line for each model that has budgets.
fn label_efficiency(document: &Document, store: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (row, results) in document.experiment.rows.iter().zip(&document.results) {
        if row.budget.is_none() {
            continue;
        }
        let labelled = Statistic::of(results.runs.iter().map(|run| labelled(row, run) as f64));
        let dice = results.figure(store, |it| it.cam_box.dice_liver);
        if lines.last().is_none_or(|line| line.name != row.model.name) {
            lines.push(Line { name: row.model.name.clone(), seed: None, points: Vec::new() });
        }
        if let (Some(line), Some(labelled), Some(mean)) = (lines.last_mut(), labelled.mean(), dice.mean()) {
            line.points.push((labelled, mean, dice.deviation()));
            line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
    }
    lines
}

/// Validation Dice by epoch and by minutes, a line for each run; epochs are counted over all phases.
fn progress(document: &Document) -> [Vec<Line>; 2] {
    let mut lines = [Vec::new(), Vec::new()];
    let experiment = document.experiment;
    for job in &experiment.jobs {
        // A damaged file is the trainer's to report; a run has none before its first step.
        let Ok(Some(metrics)) = Metrics::read(&job.run.join("metrics.csv")) else { continue };
        let epochs = metrics.table(RowKind::Epoch, &["step", "time_s", "val_dice"]);
        let points = epochs.iter().enumerate().filter_map(|(epoch, (_, of))| {
            let dice = of[2].filter(|dice| dice.is_finite())?;
            Some(((epoch + 1) as f64, of[1]? / 60.0, dice))
        });
        let points: Vec<(f64, f64, f64)> = points.collect();
        let name = experiment.rows[job.row].name();
        if !points.is_empty() {
            let line = |points| Line { name: name.clone(), seed: Some(job.seed), points };
            lines[0].push(line(points.iter().map(|(epoch, _, dice)| (*epoch, *dice, None)).collect()));
            lines[1].push(line(points.iter().map(|(_, minutes, dice)| (*minutes, *dice, None)).collect()));
        }
    }
    lines
}

fn curve(titles: [&str; 4], lines: &[Line]) -> String {
    let mut text = titles.join(",") + "\n";
    for line in lines {
        for (x, y, deviation) in &line.points {
            let deviation = deviation.map_or_else(String::new, |deviation| deviation.to_string());
            // Writing to a text can't fail.
            let name = line.seed.map_or_else(|| line.name.clone(), |seed| format!("{}, seed {seed}", line.name));
            let _ = writeln!(text, "{},{x},{y},{deviation}", quoted(&name));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latex_prints_names_as_they_are() {
        assert_eq!(
            escaped(r"50 % & _a\b{}#$~^"),
            r"50 \% \& \_a\textbackslash{}b\{\}\#\$\textasciitilde{}\textasciicircum{}"
        );
    }

    #[test]
    fn a_cell_of_csv_is_quoted_where_it_must_be() {
        assert_eq!([quoted("a"), quoted("a,\"b\"")], ["a".to_owned(), "\"a,\"\"b\"\"\"".to_owned()]);
    }
}
