//! Progress with the time that is left: a bar on a terminal, plain lines elsewhere.

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Without a terminal, a line at most this often.
const LINE_EVERY: Duration = Duration::from_secs(20);

/// A rate follows the last so many things of its kind: the first of them may be slow.
const REMEMBERED: f64 = 20.0;

/// Whether this process says nothing of its progress.
static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// From now on no ticker of this process shows anything: another one that does the same does.
pub fn show_no_progress() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// Counts steps on standard error.
pub struct Ticker {
    bar: ProgressBar,
    label: &'static str,
    begun: Instant,
    left: TimeLeft,
    plain: Option<Instant>,
}

impl Ticker {
    /// `done` of `total` were done before; all are of one kind, the first.
    pub fn new(label: &'static str, total: usize, done: usize) -> Self {
        Self::of_kinds(label, total, done, &[total.saturating_sub(done)])
    }

    /// Steps of several kinds, of each of which so many are left. Kinds whose things are no steps take time, and are not counted.
    pub fn of_kinds(label: &'static str, total: usize, done: usize, left: &[usize]) -> Self {
        let quiet = IS_QUIET.load(Ordering::Relaxed);
        let terminal = quiet || std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            Some(total as u64),
            if terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        );
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len}  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(label);
        bar.set_position(done as u64);
        let begun = Instant::now();
        Self { bar, label, begun, left: TimeLeft::new(left), plain: (!terminal).then_some(begun) }
    }

    /// What was done until now is of no kind.
    pub fn begin(&mut self) {
        self.left.begin(self.begun.elapsed());
    }

    /// One more of the first kind is done.
    pub fn tick(&mut self, message: &str) {
        self.tick_of(0, message);
    }

    /// One more step of that kind is done.
    pub fn tick_of(&mut self, kind: usize, message: &str) {
        self.worked(kind);
        self.bar.inc(1);
        self.bar.set_message(format!("{}  {message}", self.left.text()));
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        if let Some(last) = self.plain
            && (last.elapsed() > LINE_EVERY || done == total)
        {
            self.plain = Some(Instant::now());
            eprintln!("{} {done}/{total}  {}  {message}", self.label, self.left.text());
        }
    }

    /// One more thing of that kind, which is no step, is done.
    pub fn worked(&mut self, kind: usize) {
        self.left.done(kind, self.begun.elapsed());
    }

    /// These kinds of things, `steps` steps among them, will not be done.
    pub fn skip(&mut self, steps: usize, kinds: impl IntoIterator<Item = usize>) {
        kinds.into_iter().for_each(|kind| self.left.skip(kind));
        self.bar.inc(steps as u64);
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

/// How long what is left will take, by what each kind of thing took so far. Times are since the beginning.
struct TimeLeft {
    kinds: Vec<Kind>,
    /// When the last thing was done.
    last: Duration,
}

/// Things that take about the same time each.
struct Kind {
    left: usize,
    done: usize,
    /// Seconds that one takes; 0 before the first.
    rate: f64,
}

impl TimeLeft {
    fn new(left: &[usize]) -> Self {
        let kinds = left.iter().map(|&left| Kind { left, done: 0, rate: 0.0 }).collect();
        Self { kinds, last: Duration::ZERO }
    }

    fn begin(&mut self, now: Duration) {
        self.last = now;
    }

    fn done(&mut self, kind: usize, now: Duration) {
        let seconds = now.saturating_sub(self.last).as_secs_f64();
        self.last = now;
        let kind = &mut self.kinds[kind];
        kind.left = kind.left.saturating_sub(1);
        kind.done += 1;
        kind.rate += (seconds - kind.rate) / (kind.done as f64).min(REMEMBERED);
    }

    fn skip(&mut self, kind: usize) {
        self.kinds[kind].left = self.kinds[kind].left.saturating_sub(1);
    }

    /// Of what is known to last.
    fn seconds(&self) -> f64 {
        self.kinds.iter().map(|kind| kind.left as f64 * kind.rate).sum()
    }

    /// `5 minutes left`, or `more than …` where a kind that none was done of is to come.
    fn text(&self) -> String {
        if self.kinds.iter().all(|kind| kind.left == 0) {
            return "done".into();
        }
        let is_known = self.kinds.iter().all(|kind| kind.left == 0 || kind.done > 0);
        let left = HumanDuration(Duration::from_secs_f64(self.seconds()));
        match (is_known, self.seconds() >= 1.0) {
            (true, _) => format!("{left} left"),
            (false, true) => format!("more than {left} left"),
            (false, false) => "time left not known yet".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_went_before_the_first_step_is_in_no_rate() {
        let mut left = TimeLeft::new(&[844]);
        // A quarter of an hour of encoding, then a step each second.
        let begun = 900 * SECOND;
        left.begin(begun);
        for step in 1..=62 {
            left.done(0, begun + step * SECOND);
        }
        assert_eq!(left.text(), "13 minutes left");
        assert!((left.seconds() - 782.0).abs() < 1e-6);
    }

    #[test]
    fn each_kind_of_work_has_its_own_rate() {
        // 100 steps of a second, each tenth followed by a validation of 30; then 50 of 60 seconds.
        let (mut left, mut now) = (TimeLeft::new(&[100, 10, 50]), Duration::ZERO);
        let mut work = |left: &mut TimeLeft, kind, seconds| {
            now += seconds * SECOND;
            left.done(kind, now);
        };
        for step in 1..=50 {
            work(&mut left, 0, 1);
            if step % 10 == 0 {
                work(&mut left, 1, 30);
            }
        }
        assert!((left.seconds() - (50.0 + 5.0 * 30.0)).abs() < 1e-6);
        assert_eq!(left.text(), "more than 3 minutes left", "nobody knows yet what the others take");
        // A phase that ends early.
        (0..50).for_each(|_| left.skip(0));
        (0..5).for_each(|_| left.skip(1));
        work(&mut left, 2, 60);
        assert!((left.seconds() - 49.0 * 60.0).abs() < 1e-6);
        assert_eq!(left.text(), "49 minutes left");
    }

    #[test]
    fn a_slow_beginning_is_forgotten() {
        let (mut left, mut now) = (TimeLeft::new(&[200]), Duration::ZERO);
        for step in 0..100 {
            now += if step < 5 { 60 * SECOND } else { SECOND };
            left.done(0, now);
        }
        // The mean of all would be almost 4 s a step.
        assert!((100.0..200.0).contains(&left.seconds()), "{}", left.seconds());
    }
}
