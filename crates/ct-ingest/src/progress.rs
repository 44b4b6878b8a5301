//! Progress for a person: a bar with the time left on a terminal, plain lines elsewhere.

use ct_ingest::{Event, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Shows the events of a preparation on standard error.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    cases: AtomicUsize,
    done: AtomicUsize,
}

impl Progress {
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        // Bytes of the sources measure the work better than cases, whose sizes differ by a factor of ten.
        let style = ProgressStyle::with_template("{bar:30} {msg} {binary_bytes}/{binary_total_bytes}, {eta} left");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { bar, terminal, cases: AtomicUsize::new(0), done: AtomicUsize::new(0) }
    }

    pub fn show(&self, event: &Event<'_>) {
        match event {
            Event::Found { cases, bytes } => {
                self.cases.store(*cases, Ordering::Relaxed);
                self.bar.set_length(*bytes);
                self.bar.set_message(format!("0/{cases} cases"));
            }
            Event::Warning { case, text } => self.line(&format!("warning: {case}: {text}")),
            Event::Looked { bytes, .. } => {
                self.count(*bytes);
            }
            Event::Done { case, bytes, outcome } => self.done(case, *bytes, outcome),
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn done(&self, case: &str, bytes: u64, outcome: &Outcome) {
        if matches!(outcome, Outcome::Interrupted) {
            return;
        }
        let (done, cases) = self.count(bytes);
        let text = match outcome {
            Outcome::Prepared { labels } => labels.words("the target"),
            Outcome::Failed(error) => format!("failed: {error}"),
            Outcome::Merged => "copied from another store".to_owned(),
            Outcome::Unchanged | Outcome::Interrupted => return,
        };
        if !self.terminal || matches!(outcome, Outcome::Failed(_)) {
            self.line(&format!("[{done}/{cases}] {case}: {text}"));
        }
    }

    /// One case more; how many are done, and of how many.
    fn count(&self, bytes: u64) -> (usize, usize) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let cases = self.cases.load(Ordering::Relaxed);
        self.bar.inc(bytes);
        self.bar.set_message(format!("{done}/{cases} cases"));
        (done, cases)
    }

    fn line(&self, text: &str) {
        if self.terminal {
            self.bar.println(text);
        } else {
            eprintln!("{text}");
        }
    }
}
