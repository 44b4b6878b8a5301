//! Progress with the time that is left: a bar on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Without a terminal, a line at most this often.
const LINE_EVERY: Duration = Duration::from_secs(20);

/// Counts steps on standard error.
pub struct Ticker {
    bar: ProgressBar,
    label: &'static str,
    begun: Instant,
    first: u64,
    plain: Option<Instant>,
}

impl Ticker {
    /// `done` of `total` were done before.
    pub fn new(label: &'static str, total: usize, done: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            Some(total as u64),
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        );
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len}  {eta} left  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(label);
        bar.set_position(done as u64);
        bar.reset_eta();
        Self { bar, label, begun: Instant::now(), first: done as u64, plain: (!terminal).then(Instant::now) }
    }

    /// One more is done.
    pub fn tick(&mut self, message: &str) {
        self.bar.inc(1);
        self.bar.set_message(message.to_owned());
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        if let Some(last) = self.plain
            && (last.elapsed() > LINE_EVERY || done == total)
        {
            self.plain = Some(Instant::now());
            let rate = self.begun.elapsed().as_secs_f64() / (done - self.first).max(1) as f64;
            let left = Duration::from_secs_f64(rate * total.saturating_sub(done) as f64);
            eprintln!("{} {done}/{total}  {} left  {message}", self.label, indicatif::HumanDuration(left));
        }
    }

    /// What is before `done` is over, done or not.
    pub fn skip_to(&mut self, done: usize) {
        let skipped = (done as u64).saturating_sub(self.bar.position());
        self.first += skipped;
        self.bar.inc(skipped);
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        if self.plain.is_some() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
