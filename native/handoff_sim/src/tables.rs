//! The printed tables: the engine beside its baselines, in the same simulated runs.

pub mod moves;
pub mod scale;
pub mod stores;

use comfy_table::{CellAlignment, Table, presets};

/// A table with this heading, numbers to the right.
fn table(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(heading.to_vec());
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}
