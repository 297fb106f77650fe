//! The plots of every node's servers over time: one for each mode, one line a node.

use minijinja::context;
use minijinja::value::Value;
use plotters::element::PathElement;
use plotters::prelude::{ChartBuilder, Color, IntoDrawingArea, IntoFont, RGBColor, SVGBackend, TextStyle};

use super::plot::{GRID, INK, hex};
use crate::report::{ModeReport, Report, ShareLine};
use crate::{Error, Result};

const SIZE: (u32, u32) = (1_000, 260);

/// Colours of nodes, in turn: readable on a light and on a dark background, so style rules need not change them.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x3B, 0x8E, 0xD0),
    RGBColor(0xD9, 0x7B, 0x1F),
    RGBColor(0x3F, 0xA3, 0x5B),
    RGBColor(0xC9, 0x55, 0x8A),
    RGBColor(0x8C, 0x6F, 0xD1),
    RGBColor(0x9C, 0x8A, 0x1E),
    RGBColor(0x2F, 0xA6, 0xA0),
    RGBColor(0xC2, 0x4F, 0x45),
];

/// A plot for each mode in which servers changed their nodes, for the page.
pub fn plots(report: &Report) -> Result<Vec<Value>> {
    let moved = report.modes.iter().filter(|(_, of)| of.shares.iter().any(|line| line.steps.len() > 1));
    moved
        .map(|(mode, of)| {
            let svg = plot(of)?;
            let nodes: Vec<Value> = of
                .shares
                .iter()
                .enumerate()
                .map(|(index, line)| context! { name => line.node.clone(), colour => hex(colour(index)) })
                .collect();
            Ok(context! { mode => mode.name(), slug => mode.slug(), nodes, svg => Value::from_safe_string(svg) })
        })
        .collect()
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn plot(of: &ModeReport) -> Result<String> {
    let text = TextStyle::from(("sans-serif", 15).into_font()).color(&INK);
    let steps = || of.shares.iter().flat_map(|line| &line.steps);
    let from_s = steps().map(|(at_ms, _)| at_ms / 1_000.0).fold(0.0, f64::min);
    let last_s = steps().map(|(at_ms, _)| at_ms / 1_000.0).fold(0.1, f64::max);
    let until_s = last_s + (last_s - from_s) * 0.05;
    let most = steps().map(|&(_, servers)| servers).max().unwrap_or(1).max(1) as f64 * 1.05;

    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .margin_right(20)
            .x_label_area_size(48)
            .y_label_area_size(78)
            .build_cartesian_2d(from_s..until_s, 0.0..most)
            .map_err(Error::plot)?;
        chart
            .configure_mesh()
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(GRID)
            .max_light_lines(0)
            .label_style(text.clone())
            .axis_desc_style(text)
            .x_desc("seconds after the first SIGTERM, or the first node that joins")
            .y_desc("servers")
            .x_label_formatter(&|seconds| format!("{seconds:.0}"))
            .y_label_formatter(&|servers| format!("{servers:.0}"))
            .draw()
            .map_err(Error::plot)?;
        for (index, line) in of.shares.iter().enumerate() {
            let path = PathElement::new(corners(line, until_s), colour(index).stroke_width(2));
            chart.draw_series([path]).map_err(Error::plot)?;
        }
        area.present().map_err(Error::plot)?;
    }
    Ok(svg)
}

/// The corners of a stepped line, up to the end of the plot.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn corners(line: &ShareLine, until_s: f64) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for &(at_ms, servers) in &line.steps {
        let at_s = at_ms / 1_000.0;
        corners.extend(corners.last().map(|&(_, before)| (at_s, before)));
        corners.push((at_s, servers as f64));
    }
    corners.extend(corners.last().map(|&(_, servers)| (until_s, servers)));
    corners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    #[test]
    fn a_line_goes_in_steps_to_the_end_of_the_plot() {
        let line = ShareLine { node: "a".into(), steps: vec![(-500.0, 100), (300.0, 0)] };
        assert_eq!(corners(&line, 2.0), [(-0.5, 100.0), (0.3, 100.0), (0.3, 0.0), (2.0, 0.0)]);
        assert!(corners(&ShareLine { node: "b".into(), steps: vec![] }, 2.0).is_empty());
    }

    #[test]
    fn every_mode_has_a_plot_with_a_line_of_each_node() {
        let report = fixture::report();
        let plots = plots(&report).unwrap();
        assert_eq!(plots.len(), report.modes.len());
        let svg = plot(&report.modes[0].1).unwrap();
        for index in 0..2 {
            assert!(svg.contains(&hex(colour(index))), "no line of node {index}");
        }
    }

    #[test]
    fn a_mode_without_moves_has_no_plot() {
        let mut report = fixture::report();
        for (_, mode) in &mut report.modes {
            mode.shares.iter_mut().for_each(|line| line.steps.truncate(1));
        }
        assert!(plots(&report).unwrap().is_empty());
    }
}
