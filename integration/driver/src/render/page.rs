//! The page: one file that loads nothing.

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, context};

use super::rows::{DRAIN_COLUMNS, drain_rows, notes, rows, verdicts};
use super::{host, plot, shares, versions};
use crate::Result;
use crate::report::Report;

const TEMPLATE: &str = include_str!("page.html");

pub fn page(report: &Report) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page", TEMPLATE)?;

    let colours =
        [("ink", plot::INK), ("grid", plot::GRID)].map(|(name, colour)| context! { name, hex => plot::hex(colour) });
    let modes: Vec<Value> = report
        .modes
        .iter()
        .map(|(variant, of)| {
            let [light, dark] = plot::shades(*variant).map(plot::hex);
            context! { name => variant.name(), slug => variant.slug(), light, dark, gaps => of.gaps.len() }
        })
        .collect();
    Ok(environment.get_template("page")?.render(context! {
        colours => colours.to_vec(),
        modes,
        drain_columns => DRAIN_COLUMNS.to_vec(),
        drains => Serde(drain_rows(report)),
        notes => notes(report),
        host => host(report),
        versions => versions(report),
        verdicts => Serde(verdicts(report)),
        rows => Serde(rows(report)),
        settings => Serde(report.settings.described()),
        plot => plot::gaps(report)?.map(Value::from_safe_string),
        shares => shares::plots(report)?,
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    #[test]
    fn the_page_has_the_comparison_the_settings_the_drains_and_the_plot() {
        let page = page(&fixture::report()).unwrap();
        for expected in [
            "<svg",
            "Servers on each node",
            "44.3 s",
            "this project&#x27;s stand-in",
            "rolling, surge",
            "old1",
            "2 servers were not back",
        ] {
            assert!(page.contains(expected), "no {expected:?}");
        }
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = page(&fixture::report()).unwrap();
        // The only address is the name of the SVG namespace, which no browser requests.
        let addresses: Vec<_> =
            page.match_indices("//").map(|(at, _)| &page[at.saturating_sub(6)..(at + 18).min(page.len())]).collect();
        assert!(addresses.iter().all(|near| near.contains("//www.w3.org/")), "{addresses:?}");
        for loader in ["<link", "<script", "src=", "url(", "@import"] {
            assert!(!page.contains(loader), "{loader}");
        }
    }

    #[test]
    fn text_from_nodes_is_escaped() {
        let mut report = fixture::report();
        report.versions.elixir = "<b>1.14".into();
        assert!(page(&report).unwrap().contains("&lt;b&gt;1.14"));
    }
}
