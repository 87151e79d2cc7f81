//! Line plots as SVG files.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use serde::Serialize;

use crate::table::number;

const SIZE: (u32, u32) = (800, 450);

/// The palette of Okabe and Ito, which color-blind readers can distinguish.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
];

/// A plot of several lines.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Plot {
    /// The file name without extension.
    pub(super) name: String,
    pub(super) title: String,
    /// The label of the horizontal axis.
    pub(super) x: String,
    /// The label of the vertical axis.
    pub(super) y: String,
    /// Whether both axes are logarithmic.
    pub(super) logarithmic: bool,
    pub(super) series: Vec<Series>,
    /// The runs that the plot omits, with the reasons.
    pub(super) notes: Vec<String>,
}

/// A line with its name.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Series {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), points: Vec::new() }
    }

    /// Adds a point if there is a value.
    pub(super) fn add(&mut self, x: f64, y: Option<f64>) {
        self.points.extend(y.map(|y| (x, y)));
    }
}

impl Plot {
    pub(super) fn file_name(&self) -> String {
        format!("{}.svg", self.name)
    }

    /// Draws the plot as SVG.
    pub(super) fn svg(&self) -> Result<String> {
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            self.draw(&area).map_err(|error| anyhow!("cannot draw {}: {error}", self.name))?;
        }
        Ok(text)
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
        area.fill(&WHITE)?;
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let greatest = |pick: fn(&(f64, f64)) -> f64| points().map(pick).fold(0.0, f64::max).max(1.0);
        let least = |pick: fn(&(f64, f64)) -> f64| points().map(pick).min_by(f64::total_cmp).unwrap_or(0.1).max(0.001);
        let mut builder = ChartBuilder::on(area);
        builder.caption(&self.title, ("sans-serif", 20)).margin(15).x_label_area_size(45).y_label_area_size(70);
        // Leaves space for the legend above the lines.
        let (x_end, y_end) = (greatest(|point| point.0) * 1.05, greatest(|point| point.1) * 1.35);
        if self.logarithmic {
            let x = (least(|point| point.0) * 0.9..x_end).log_scale();
            let y = (least(|point| point.1) * 0.8..y_end).log_scale();
            self.lines(builder.build_cartesian_2d(x, y)?)
        } else {
            self.lines(builder.build_cartesian_2d(0.0..x_end, 0.0..y_end)?)
        }
    }

    fn lines<'a, 'b: 'a, X, Y>(
        &self,
        mut chart: ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let x_label = |value: &f64| if value.fract() == 0.0 { number(*value, 0) } else { String::new() };
        let y_label = |value: &f64| number(*value, if *value < 10.0 && value.fract() != 0.0 { 1 } else { 0 });
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .light_line_style(WHITE)
            .draw()?;
        for (index, series) in self.series.iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            chart
                .draw_series(LineSeries::new(series.points.iter().copied(), color.stroke_width(2)))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
            chart.draw_series(series.points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(if self.logarithmic { SeriesLabelPosition::UpperRight } else { SeriesLabelPosition::UpperLeft })
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(logarithmic: bool, series: Vec<Series>) -> Plot {
        Plot {
            name: "a".into(),
            title: "Cost".into(),
            x: "subscribers".into(),
            y: "us".into(),
            logarithmic,
            series,
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_plot_has_labels_for_its_lines_and_axes() {
        for logarithmic in [false, true] {
            let mut line = Series::new("carillon");
            for (x, y) in [(10.0, 3.0), (100.0, 3.5), (1000.0, 4.0)] {
                line.add(x, Some(y));
            }
            line.add(10_000.0, None);
            let svg = plot(logarithmic, vec![line, Series::new("without points")]).svg().expect("the plot is drawn");
            for text in ["<svg", "carillon", "Cost", "subscribers", "us", "</svg>"] {
                assert!(svg.contains(text), "no {text} in {svg}");
            }
        }
    }

    #[test]
    fn a_plot_without_points_is_drawn() {
        for logarithmic in [false, true] {
            let svg = plot(logarithmic, vec![Series::new("failed")]).svg().expect("the plot is drawn");
            assert!(svg.contains("</svg>"), "{svg}");
        }
    }
}
