//! Curves of a study as SVG: Dice against labelled slices, and validation Dice against epochs and against time.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// A line with its points; a deviation becomes a bar. Lines of one name have one colour.
pub struct Line {
    pub name: String,
    /// Of a single run.
    pub seed: Option<u64>,
    /// x, y, deviation of y.
    pub points: Vec<(f64, f64, Option<f64>)>,
}

const WIDTH: u32 = 720;
/// Without the names of lines.
const HEIGHT: u32 = 440;
const FONT: (&str, i32) = ("sans-serif", 13);

/// One pair of axes with its lines, as the text of an SVG file. There is at least one point.
pub fn plot(title: &str, x_label: &str, y_label: &str, lines: &[Line]) -> Result<String> {
    let mut text = String::new();
    draw(&mut text, (title, x_label, y_label), lines).map_err(|error| anyhow!("cannot draw '{title}': {error}"))?;
    Ok(text)
}

fn draw(
    text: &mut String,
    (title, x_label, y_label): (&str, &str, &str),
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = points().map(|(x, ..)| *x).fold(0.0, f64::max);
    let lowest = points().map(|(_, y, sd)| y - sd.unwrap_or(0.0)).fold(1.0, f64::min);
    // Dice of good models lie close together; ten steps to 1, whole hundredths.
    let bottom = (lowest * 10.0 - 0.2).floor().max(0.0) / 10.0;
    let mut names: Vec<&str> = Vec::new();
    for line in lines {
        if !names.contains(&&*line.name) {
            names.push(&line.name);
        }
    }
    // The names stand in a box of their own height within the plot.
    let height = HEIGHT.max(160 + 17 * names.len() as u32);
    let area = SVGBackend::with_string(text, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..most.max(1e-3) * 1.05, bottom..1.0)?;
    chart.configure_mesh().x_desc(x_label).y_desc(y_label).label_style(FONT).light_line_style(WHITE).draw()?;
    let mut named = 0;
    for line in lines {
        let place = names.iter().position(|name| *name == line.name).unwrap_or_default();
        let colour = Palette99::pick(place).to_rgba();
        let path = line.points.iter().map(|(x, y, _)| (*x, *y));
        let series = chart.draw_series(LineSeries::new(path.clone(), colour.stroke_width(2)))?;
        if place == named {
            named += 1;
            series
                .label(line.name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        if line.points.len() < 60 {
            chart.draw_series(path.map(|point| Circle::new(point, 3, colour.filled())))?;
        }
        let bars = line.points.iter().filter_map(|(x, y, sd)| sd.map(|sd| [(*x, y - sd), (*x, y + sd)]));
        chart.draw_series(bars.map(|bar| PathElement::new(bar, colour.stroke_width(1))))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .label_font(FONT)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_axes_names_and_a_bar_for_each_deviation() {
        let line = Line { name: "a < b".into(), seed: None, points: vec![(5.0, 0.8, Some(0.05)), (50.0, 0.9, None)] };
        let svg = plot("T", "labelled slices", "Dice", &[line]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for text in ["labelled slices", "Dice", "a &lt; b"] {
            assert!(svg.contains(text), "no {text} in {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 2);
        // The bar: a vertical line from 0.75 to 0.85.
        let is_bar = |line: &str| {
            let points = line.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            let points: Vec<&str> = points.split_whitespace().collect();
            points.len() == 2 && points[0].split(',').next() == points[1].split(',').next()
        };
        let bars = svg.lines().filter(|line| line.starts_with("<polyline") && line.contains("#E6194B") && is_bar(line));
        assert_eq!(bars.count(), 1, "{svg}");
    }

    #[test]
    fn runs_of_a_row_have_one_colour_and_its_name_once() {
        let run = |name: &str, seed| Line {
            name: name.into(),
            seed: Some(seed),
            points: vec![(1.0, 0.5, None), (2.0, 0.6, None)],
        };
        let svg = plot("T", "epochs", "Dice", &[run("one", 0), run("two", 0), run("one", 1), run("two", 1)]).unwrap();
        let names = |name: &str| svg.lines().filter(|line| line.trim() == name).count();
        assert_eq!((names("one"), names("two")), (1, 1), "{svg}");
        // Two points of two runs each, in the first two colours.
        for colour in ["#E6194B", "#3CB44B"] {
            assert_eq!(
                svg.lines().filter(|line| line.contains("<circle") && line.contains(colour)).count(),
                4,
                "{svg}"
            );
        }
    }
}
