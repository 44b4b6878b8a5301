//! Line charts as inline SVG: no script, colours from the page's style sheet.

use maud::{Markup, html};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 264.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = WIDTH - 18.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = HEIGHT - 40.0;
/// A longer run is drawn as the lowest and highest value of each of this many stretches.
const STRETCHES: usize = 300;
/// The smoothed line averages this share of all points.
const SMOOTHING_SHARE: usize = 40;

/// One picture with one pair of axes.
pub struct Chart {
    pub title: String,
    pub x_label: &'static str,
    pub y_label: &'static str,
    /// Pictures of one kind share it, so that they can be compared.
    pub x_range: (f64, f64),
    pub y_range: YRange,
    /// Drawn in this order in the colours `s1`, `s2`, … of the style sheet.
    pub lines: Vec<Line>,
    /// Vertical marks with their labels.
    pub marks: Vec<(f64, String)>,
    /// A point to point out.
    pub highlight: Option<(f64, f64, String)>,
}

/// Values by x, ascending in x.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub style: Style,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Each point is marked.
    Points,
    /// A line through all values.
    Plain,
    /// A faint line through all values, a clear one through their moving average.
    Smoothed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum YRange {
    /// 0 to 1.
    Unit,
    /// From 0 (or lower values) to where 99 of 100 values lie.
    Values,
}

impl Chart {
    pub fn render(&self) -> Markup {
        let x = Axis::new(widened(self.x_range.0, self.x_range.1), (LEFT, RIGHT), 8, 1.0);
        let y = Axis::new(self.y_range(), (BOTTOM, TOP), 5, 0.0);
        let description = format!("{}: {} by {}", self.title, self.y_label, self.x_label);
        html! {
            figure class="chart" {
                figcaption {
                    strong { (self.title) }
                    @if self.lines.len() > 1 {
                        @for (i, line) in self.lines.iter().enumerate() {
                            span class="key" { span class={ "swatch f" (i + 1) } {} (line.name) }
                        }
                    } @else if let Some(window) = self.lines.first().and_then(Line::window) {
                        span class="key" { "averaged over " (window) " values" }
                    }
                }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(description) {
                    (self.axes(&x, &y))
                    (self.marks(&x))
                    @for (i, line) in self.lines.iter().enumerate() { (line.render(i + 1, &x, &y)) }
                    @if let Some((px, py, label)) = &self.highlight {
                        circle class="highlight" cx=(x.at(*px)) cy=(y.at(*py)) r="5.5" {}
                        text class="label" x=(x.at(*px).clamp(LEFT + 50.0, RIGHT - 50.0)) y=(y.at(*py) + 22.0)
                            text-anchor="middle" { (label) }
                    }
                }
            }
        }
    }

    fn axes(&self, x: &Axis, y: &Axis) -> Markup {
        html! {
            @for tick in y.ticks() {
                line class="grid" x1=(LEFT) x2=(RIGHT) y1=(y.at(tick)) y2=(y.at(tick)) {}
                text x=(LEFT - 7.0) y=(y.at(tick) + 4.0) text-anchor="end" { (y.label(tick)) }
            }
            line class="axis" x1=(LEFT) x2=(RIGHT) y1=(BOTTOM) y2=(BOTTOM) {}
            @for tick in x.ticks() {
                line class="axis" x1=(x.at(tick)) x2=(x.at(tick)) y1=(BOTTOM) y2=(BOTTOM + 4.0) {}
                text x=(x.at(tick)) y=(BOTTOM + 17.0) text-anchor="middle" { (x.label(tick)) }
            }
            text class="label" x=(f64::midpoint(LEFT, RIGHT)) y=(HEIGHT - 5.0) text-anchor="middle" { (self.x_label) }
            text class="label" x=(LEFT - 40.0) y="12" { (self.y_label) }
        }
    }

    /// Labels above the picture, in turns at two heights, so that those of short phases do not overprint each other.
    fn marks(&self, x: &Axis) -> Markup {
        html! {
            @for (i, (position, label)) in self.marks.iter().enumerate() {
                line class="mark" x1=(x.at(*position)) x2=(x.at(*position)) y1=(TOP) y2=(BOTTOM) {}
                text class="label" x=(x.at(*position)) y=(TOP - 5.0 - 13.0 * (i % 2) as f64) { (label) }
            }
        }
    }

    fn y_range(&self) -> (f64, f64) {
        if self.y_range == YRange::Unit {
            return (0.0, 1.0);
        }
        let mut values: Vec<f64> = self.lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y).collect();
        values.sort_unstable_by(f64::total_cmp);
        let smoothed = self.lines.iter().flat_map(Line::smoothed).map(|(_, y)| y).fold(f64::NEG_INFINITY, f64::max);
        let (Some(low), Some(high)) = (values.first(), values.get(values.len() * 99 / 100)) else { return (0.0, 1.0) };
        widened(low.min(0.0), high.max(smoothed))
    }
}

impl Line {
    fn render(&self, number: usize, x: &Axis, y: &Axis) -> Markup {
        let path = |points: &[(f64, f64)]| {
            let pair = |(px, py): &(f64, f64)| format!("{},{}", x.at(*px), y.at(*py));
            points.iter().map(pair).collect::<Vec<_>>().join(" ")
        };
        html! {
            @match self.style {
                Style::Points => {
                    polyline class={ "line s" (number) } points=(path(&self.points)) {}
                    @for (px, py) in &self.points {
                        circle class={ "f" (number) } cx=(x.at(*px)) cy=(y.at(*py)) r="3" {
                            title { (self.name) " " (x.label(*px)) ": " (format!("{py:.3}")) }
                        }
                    }
                }
                Style::Plain => polyline class={ "line s" (number) } points=(path(&self.thinned())) {},
                Style::Smoothed => {
                    polyline class={ "raw s" (number) } points=(path(&self.thinned())) {}
                    polyline class={ "line s" (number) } points=(path(&self.smoothed())) {}
                }
            }
        }
    }

    /// Points in one average, if the line is smoothed at all.
    fn window(&self) -> Option<usize> {
        let window = self.points.len() / SMOOTHING_SHARE;
        (self.style == Style::Smoothed && window > 1).then_some(window)
    }

    /// Centred moving average, at no more points than are drawn.
    fn smoothed(&self) -> Vec<(f64, f64)> {
        let half = self.window().map_or(0, |window| window / 2);
        let average = |i: usize| {
            let around = &self.points[i.saturating_sub(half)..(i + half + 1).min(self.points.len())];
            (self.points[i].0, around.iter().map(|(_, y)| y).sum::<f64>() / around.len() as f64)
        };
        (0..self.points.len()).step_by(self.points.len().div_ceil(STRETCHES).max(1)).map(average).collect()
    }

    /// Lowest and highest value of each stretch of the line, or the line itself if it is short.
    fn thinned(&self) -> Vec<(f64, f64)> {
        if self.points.len() <= 2 * STRETCHES {
            return self.points.clone();
        }
        let extremes = |stretch: &[(f64, f64)]| {
            let lowest = stretch.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
            let highest = stretch.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
            let mut both: Vec<_> = lowest.into_iter().chain(highest).collect();
            both.sort_by(|a, b| a.0.total_cmp(&b.0));
            both
        };
        self.points.chunks(self.points.len().div_ceil(STRETCHES)).flat_map(extremes).collect()
    }
}

/// Values to pixels, with round ticks.
struct Axis {
    values: (f64, f64),
    pixels: (f64, f64),
    step: f64,
}

impl Axis {
    fn new(values: (f64, f64), pixels: (f64, f64), most_ticks: usize, smallest_step: f64) -> Self {
        let rough = ((values.1 - values.0) / most_ticks as f64).max(smallest_step);
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|round| round * magnitude).into_iter().find(|step| *step >= rough);
        Self { values, pixels, step: step.unwrap_or(rough) }
    }

    /// Position of a value; values beyond the axis stay at its end. A quarter of a pixel is enough and keeps the page
    /// small.
    fn at(&self, value: f64) -> f64 {
        let share = ((value - self.values.0) / (self.values.1 - self.values.0)).clamp(0.0, 1.0);
        ((self.pixels.0 + share * (self.pixels.1 - self.pixels.0)) * 4.0).round() / 4.0
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let tolerance = 1e-9;
        let first = (self.values.0 / self.step - tolerance).ceil() as i64;
        let last = (self.values.1 / self.step + tolerance).floor() as i64;
        (first..=last).map(|i| i as f64 * self.step)
    }

    fn label(&self, value: f64) -> String {
        if self.step < 1e-3 {
            return if value == 0.0 { "0".into() } else { format!("{value:.1e}").replace(".0e", "e") };
        }
        format!("{value:.*}", (-self.step.log10().floor()).max(0.0) as usize)
    }
}

/// A range of a single value gets a neighbourhood.
fn widened(low: f64, high: f64) -> (f64, f64) {
    if low < high { (low, high) } else { (low - 0.5, low + 0.5) }
}
