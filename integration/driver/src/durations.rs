//! Formats durations.

/// A duration with three significant digits; `-` for `None`.
pub fn rounded(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) if ms < 100.0 => format!("{ms:.1} ms"),
        Some(ms) if ms < 1_000.0 => format!("{ms:.0} ms"),
        Some(ms) if ms < 10_000.0 => format!("{:.2} s", ms / 1_000.0),
        Some(ms) => format!("{:.1} s", ms / 1_000.0),
    }
}

/// The full duration, for a setting or an axis label.
pub fn exact(ms: f64) -> String {
    if ms < 1_000.0 { format!("{ms} ms") } else { format!("{} s", ms / 1_000.0) }
}

/// Seconds with one decimal.
pub fn tenths(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_significant_digits() {
        let shown = [0.5, 31.26, 208.4, 2_800.0, 44_300.0].map(|ms| rounded(Some(ms)));
        assert_eq!(shown, ["0.50 ms", "31.3 ms", "208 ms", "2.80 s", "44.3 s"]);
        assert_eq!(rounded(None), "-");
    }

    #[test]
    fn settings_have_all_digits() {
        assert_eq!([0.1, 500.0, 1_500.0, 60_000.0].map(exact), ["0.1 ms", "500 ms", "1.5 s", "60 s"]);
    }
}
