//! The comparison page: a study's tables and curves as one HTML file that opens from disk.

use maud::{DOCTYPE, PreEscaped, html};
use std::path::Path;

use super::document::Document;

const STYLE: &str = include_str!("page.css");

/// `plots` are SVG files' texts; `folder` is where the page will lie: runs are linked to from there.
pub fn page(document: &Document, plots: &[String], folder: &Path) -> String {
    let Document { experiment, results, failures, .. } = document;
    let [over, note] = document.explained();
    let reports = results.iter().zip(&experiment.rows).flat_map(|(row, of)| row.runs.iter().map(move |run| (of, run)));
    let reports = reports.filter_map(|(of, run)| {
        let job = experiment.jobs.iter().find(|job| job.run.ends_with(format!("{}-{}", of.key(), run.seed)))?;
        let report = job.run.join("report.html");
        let path = report.is_file().then(|| report.canonicalize().ok()).flatten()?;
        Some((format!("{}, seed {}", of.name(), run.seed), relative(&path, folder)?))
    });
    let reports: Vec<(String, String)> = reports.collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (experiment.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (experiment.title) }
                p.note { code { (document.command) } " Commit " (document.commit) ", " (document.date) ". " (document.machine) ". " (document.trained()) }
                p { (document.leaks.replace("**", "")) }
                @for (index, store) in experiment.stores.iter().enumerate() {
                    section {
                        h2 { (document.heading(index).replace('`', "")) }
                        @if store.development { p.warning { "Development data: an option was chosen on it. No result." } }
                        p { (document.counts(index).trim()) }
                        (document.table_of(index).html())
                        h3 { "Over patients" }
                        @let (table, reasons) = document.patients_table(index);
                        (table.html())
                        @if !reasons.is_empty() { ul { @for reason in reasons { li { (reason) } } } }
                    }
                }
                @if !plots.is_empty() { section { h2 { "Curves" } @for plot in plots { figure { (PreEscaped(plot)) } } } }
                section {
                    h2 { "The models" }
                    (document.models_table().html())
                    @if !reports.is_empty() {
                        h3 { "Reports of single runs" }
                        ul { @for (name, path) in reports { li { a href=(path) { (name) } } } }
                    }
                    @if !failures.is_empty() { h3 { "Failed" } ul { @for failure in failures { li { (failure) } } } }
                }
                section { h2 { "How to read it" } p { (over) } p { (note) } }
            }
        }
    };
    page.into_string()
}

/// A file's path as a link from a folder of the same tree.
fn relative(file: &Path, folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let shared = file.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(shared).map(|_| "..".to_owned());
    let down = file.components().skip(shared).map(|part| part.as_os_str().to_string_lossy().into_owned());
    Some(up.chain(down).collect::<Vec<_>>().join("/"))
}
