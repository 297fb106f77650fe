//! The format of all tables on the terminal.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table};

pub fn table<N: ToString>(names: impl IntoIterator<Item = N>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    let bold = |name: N| Cell::new(name.to_string()).add_attribute(Attribute::Bold);
    table.set_header(names.into_iter().map(bold).collect::<Vec<_>>());
    table
}

/// A row: names to the left, figures to the right.
pub fn row<const N: usize>(names: [&str; N], figures: impl IntoIterator<Item = String>) -> Vec<Cell> {
    let figures = figures.into_iter().map(|figure| Cell::new(figure).set_alignment(CellAlignment::Right));
    names.into_iter().map(Cell::new).chain(figures).collect()
}
