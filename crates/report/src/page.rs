//! The page: what it shows and in which order.

mod details;
mod results;
mod training;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::evaluation::Evaluation;
use crate::run::Run;

const STYLE: &str = include_str!("style.css");

/// The whole document.
pub fn page(run: &Run) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (run.name()) " · SAM-Mix run" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p class="kind" { "SAM-Mix run" }
                    h1 { (run.name()) }
                    (details::summary(run))
                }
                main {
                    (results::sections(run))
                    (training::section(run))
                    (details::section(run))
                }
                footer { "Written by sam-mix-report " (env!("CARGO_PKG_VERSION")) "." }
            }
        }
    }
}

/// What stands where something is missing.
fn not_there_yet(command: &str) -> Markup {
    html! { p class="missing" { "Not there yet: run " code { (command) } } }
}

/// Command that makes the evaluation of `run`: this one again, or the first. The run doesn't know where its store lies.
fn evaluate(run: &Run, again: Option<&Evaluation>) -> String {
    let split = match again.map(|evaluation| evaluation.results.split.as_str()) {
        None | Some("test") => "test",
        Some("validation") => "validation",
        Some(_) => "all",
    };
    let program = run.record.other_program().unwrap_or("cargo xtask");
    format!("{program} evaluate --run {} --store STORE --split {split}", run.path.display())
}

/// A figure with so many decimals; `n/a` refers to the footnote below the tables.
fn figure(figure: Option<f64>, decimals: usize) -> Markup {
    html! {
        @match figure {
            Some(value) => { (format!("{value:.decimals$}")) }
            None => { span class="na" { "n/a" sup { "†" } } }
        }
    }
}
