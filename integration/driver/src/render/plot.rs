//! The plot of all gaps by the time at which they began, with one colour per mode and a logarithmic axis.
//!
//! The plot uses a few fixed colours. Style rules of the page replace them for a light or a dark background;
//! the plot alone shows them unchanged.

use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::element::Circle;
use plotters::prelude::{
    ChartBuilder, Color, IntoDrawingArea, IntoFont, RGBColor, SVGBackend, SeriesLabelPosition, TextStyle, WHITE,
};

use crate::durations::exact;
use crate::report::Report;
use crate::variant::{Client, Executor, Mode, Variant};
use crate::{Error, Result};

/// Text and axes.
pub const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);

/// Lines behind the points.
pub const GRID: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);

const SIZE: (u32, u32) = (1_000, 460);

/// The smallest gap the axis can show: a logarithm has no zero.
const FLOOR_MS: f64 = 0.1;

/// A column's colour on a light and on a dark background. Modes differ in hue, distinguishable with the
/// common colour deficiencies; columns of the same mode in brightness where only the clients differ.
pub fn shades(variant: Variant) -> [RGBColor; 2] {
    let [light, dark] = match (variant.mode, variant.executor, variant.killed) {
        (Mode::Graceful, ..) => [RGBColor(0xC8, 0x3E, 0x4D), RGBColor(0xF0, 0x70, 0x7C)],
        (Mode::Naive, ..) => [RGBColor(0xB8, 0x75, 0x03), RGBColor(0xF0, 0xB1, 0x3C)],
        (Mode::Handoff, Executor::Embedded, _) => [RGBColor(0x0B, 0x7A, 0x9E), RGBColor(0x4F, 0xBF, 0xE3)],
        (Mode::Handoff, Executor::Node, false) => [RGBColor(0x2F, 0x7D, 0x3B), RGBColor(0x6C, 0xC9, 0x7B)],
        (Mode::Handoff, Executor::Node, true) => [RGBColor(0x7A, 0x4F, 0xB5), RGBColor(0xB8, 0x95, 0xEA)],
    };
    match variant.client {
        Client::Plain => [light, dark],
        Client::Handoff => [mixed(light, 0xFF), mixed(dark, 0x00)],
    }
}

/// The colour as CSS and SVG write it.
pub fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// Two parts of a colour with one part of a grey.
fn mixed(RGBColor(r, g, b): RGBColor, grey: u8) -> RGBColor {
    let mix = |part: u8| part / 3 * 2 + grey / 3;
    RGBColor(mix(r), mix(g), mix(b))
}

/// The plot as SVG for the page, which has the legend and the background; `None` when there is no gap to show.
pub fn gaps(report: &Report) -> Result<Option<String>> {
    plot(report, false)
}

/// The plot as a picture of its own, with legend and background; `None` when there is no gap to show.
pub fn picture(report: &Report) -> Result<Option<String>> {
    plot(report, true)
}

fn plot(report: &Report, alone: bool) -> Result<Option<String>> {
    let points = || report.modes.iter().flat_map(|(_, of)| &of.gaps);
    if points().next().is_none() {
        return Ok(None);
    }
    let until_s = points().map(|point| point.at_ms / 1_000.0).fold(0.0, f64::max);
    let decades = decades(points().map(|point| point.gap_ms.max(FLOOR_MS)));
    let mut svg = String::new();
    draw(report, alone, until_s.max(0.1) * 1.02, &decades, &mut svg)?;
    Ok(Some(svg))
}

/// Powers of ten that enclose all values, at least one decade.
fn decades(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        (least.min(value.log10().floor()), most.max(value.log10().ceil()))
    });
    let mut decades = vec![10f64.powf(least)];
    let mut exponent = least + 1.0;
    while exponent <= most.max(least + 1.0) {
        decades.push(10f64.powf(exponent));
        exponent += 1.0;
    }
    decades
}

fn draw(report: &Report, alone: bool, until_s: f64, decades: &[f64], svg: &mut String) -> Result<()> {
    let text = |size: u32| TextStyle::from(("sans-serif", size).into_font()).color(&INK);
    let (Some(&least), Some(&most)) = (decades.first(), decades.last()) else {
        return Ok(());
    };

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    if alone {
        area.fill(&WHITE).map_err(Error::plot)?;
    }
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .margin_right(20)
        .x_label_area_size(48)
        .y_label_area_size(78)
        .build_cartesian_2d(0.0..until_s, (least..most).log_scale().with_key_points(decades.to_vec()))
        .map_err(Error::plot)?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(GRID.mix(0.0))
        .label_style(text(15))
        .axis_desc_style(text(15))
        .x_desc("when the server stopped, in seconds after the first SIGTERM")
        .y_desc("gap")
        .x_label_formatter(&|seconds| {
            if until_s < 5.0 { format!("{seconds:.1}") } else { format!("{seconds:.0}") }
        })
        .y_label_formatter(&|ms| exact(*ms))
        .draw()
        .map_err(Error::plot)?;
    for (mode, of) in &report.modes {
        let [colour, _] = shades(*mode);
        let style = colour.filled();
        let dots =
            of.gaps.iter().map(|point| Circle::new((point.at_ms / 1_000.0, point.gap_ms.max(FLOOR_MS)), 3, style));
        let series = chart.draw_series(dots).map_err(Error::plot)?;
        if alone {
            series.label(mode.name()).legend(move |at| Circle::new(at, 5, style));
        }
    }
    if alone {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(GRID)
            .label_font(text(15))
            .draw()
            .map_err(Error::plot)?;
    }
    area.present().map_err(Error::plot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    #[test]
    fn every_gap_is_a_dot_in_the_colour_of_its_mode() {
        let report = fixture::report();
        let svg = gaps(&report).unwrap().unwrap();
        for (mode, of) in &report.modes {
            let fill = format!("fill=\"{}\"", hex(shades(*mode)[0]));
            let dots = svg.matches("<circle").count();
            let here = svg.split("<circle").filter(|dot| dot.contains(&fill)).count();
            assert_eq!(here, of.gaps.len(), "{mode} among {dots}");
        }
    }

    #[test]
    fn the_axes_have_labels_in_readable_units() {
        let svg = gaps(&fixture::report()).unwrap().unwrap();
        for label in ["10 ms", "100 ms", "1 s", "10 s", "100 s", "seconds after the first SIGTERM", "gap"] {
            assert!(svg.contains(label), "no {label:?}");
        }
    }

    #[test]
    fn the_picture_has_every_mode_in_its_legend() {
        let report = fixture::report();
        let (page, picture) = (gaps(&report).unwrap().unwrap(), picture(&report).unwrap().unwrap());
        for (mode, _) in &report.modes {
            assert!(picture.contains(&mode.name().to_string()), "no {mode}");
            assert!(!page.contains(&mode.name().to_string()), "{mode} is in the page's plot too");
        }
    }

    #[test]
    fn decades_enclose_the_values() {
        assert_eq!(decades([31.0, 44_300.0].into_iter()), [10.0, 100.0, 1_000.0, 10_000.0, 100_000.0]);
        assert_eq!(decades([10.0].into_iter()), [10.0, 100.0]);
    }

    #[test]
    fn an_overlap_is_drawn_at_the_floor_and_a_run_without_gaps_has_no_plot() {
        let mut report = fixture::report();
        report.modes[0].1.gaps[0].gap_ms = 0.0;
        assert!(gaps(&report).unwrap().unwrap().contains("0.1 ms"));
        for (_, of) in &mut report.modes {
            of.gaps.clear();
        }
        assert_eq!(gaps(&report).unwrap(), None);
    }
}
