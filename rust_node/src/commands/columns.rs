//! Text in columns.

/// Formats rows so that every column is as wide as its widest cell. Lines have no trailing spaces.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let text = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(text).collect()
}

/// A duration in the unit that fits it.
pub(super) fn duration_us(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        10_000..10_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "LONG", "C"], ["wide", "b", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "A     LONG  C\nwide  b\n");
    }

    #[test]
    fn durations_have_a_unit_that_fits() {
        assert_eq!([1_250, 35_400, 12_345_678].map(duration_us), ["1.2 ms", "35 ms", "12.3 s"]);
    }
}
