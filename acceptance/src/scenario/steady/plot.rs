//! Curves over time, as a picture in SVG: a panel a curve.

use std::fmt::Write;

use anyhow::Result;

use super::{Sample, float};

const COLUMNS: usize = 2;
/// Of a panel, with its margins.
const PANEL: (f64, f64) = (420.0, 190.0);
const MARGIN: f64 = 40.0;
const GRID: usize = 4;

/// A curve.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    value: fn(&Sample) -> f64,
}

impl Series {
    pub(super) fn new(name: &'static str, value: fn(&Sample) -> f64) -> Self {
        Self { name, value }
    }

    pub(super) fn of(&self, sample: &Sample) -> f64 {
        (self.value)(sample)
    }
}

pub(super) fn draw(series: &[Series], samples: &[Sample]) -> Result<String> {
    let (width, height) = PANEL;
    let rows = series.len().div_ceil(COLUMNS);
    let (all_width, all_height) = (width * float(COLUMNS as u64), height * float(rows as u64));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all_width} {all_height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (place, series) in series.iter().enumerate() {
        let (column, row) = (float((place % COLUMNS) as u64), float((place / COLUMNS) as u64));
        writeln!(svg, "<g transform=\"translate({},{})\">", column * width, row * height)?;
        panel(&mut svg, series, samples)?;
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn panel(svg: &mut String, series: &Series, samples: &[Sample]) -> Result<()> {
    let (width, height) = (PANEL.0 - 2.0 * MARGIN, PANEL.1 - 2.0 * MARGIN);
    let end = samples.last().map_or(1.0, |sample| sample.second).max(1.0);
    let top = round_up(samples.iter().map(|sample| series.of(sample)).fold(0.0, f64::max));
    writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"{}\" font-weight=\"bold\">{}</text>",
        MARGIN - 10.0,
        series.name
    )?;
    for line in 0..=GRID {
        let share = float(line as u64) / float(GRID as u64);
        let (y, x) = (MARGIN + height * (1.0 - share), MARGIN + width * share);
        writeln!(
            svg,
            "<path d=\"M{MARGIN} {y}h{width}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{:.0} s</text>",
            MARGIN - 4.0,
            y + 4.0,
            top * share,
            MARGIN + height + 15.0,
            end * share
        )?;
    }
    let place = |sample: &Sample| {
        let (x, y) = (sample.second / end, series.of(sample) / top);
        format!("{:.1},{:.1}", MARGIN + width * x, MARGIN + height * (1.0 - y))
    };
    let points: Vec<String> =
        samples.iter().filter(|sample| series.of(sample).is_finite()).map(place).collect();
    writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"1.5\"/>",
        points.join(" ")
    )?;
    Ok(())
}

/// The next of 1, 2, 4, 8 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(0.01).log10().floor());
    let steps = [1.0, 2.0, 4.0, 8.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_a_point_in_every_panel() {
        let samples: Vec<Sample> = [1.0, 2.0, 4.0]
            .map(|second| Sample { second, slices: 30.0 * second, ..Sample::default() })
            .into();
        let series = [Series::new("a", |sample| sample.slices), Series::new("b", |sample| sample.second)];
        let svg = draw(&series, &samples).unwrap();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("380.0,84.0"), "120 of 200 at the end: {svg}");
        assert!((round_up(120.0) - 200.0).abs() < 1e-9 && (round_up(0.5) - 0.8).abs() < 1e-9);
    }
}
