//! Shared parts of several command lines: checks of flag values, and the display of enums.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// The value as it is typed on the command line.
pub fn flag_value(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

/// `Display` for enums that are values of a flag: as they are typed.
macro_rules! shown_as_flag {
    ($($name:ty),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::flags::flag_value(self))
            }
        }
    )*};
}
pub(crate) use shown_as_flag;

/// Why a list of flag values is invalid, if it contains one twice.
pub fn twice<T: PartialEq + Display>(flag: &str, values: &[T]) -> Option<String> {
    let (_, twice) = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value))?;
    Some(format!("{flag} names {twice} twice; each runs once"))
}

/// For clap: a number from 0 to 1.
pub fn fraction(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        _ => Err("takes a number from 0 to 1".to_owned()),
    }
}

/// For clap: a file that can be written. Checked before the run, which takes minutes.
pub fn writable(value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.as_os_str().is_empty() {
        return Err("a file name is needed".to_owned());
    }
    if path.is_dir() {
        return Err("this is a directory; a file name is needed".to_owned());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() { Ok(path) } else { Err(format!("the directory {} does not exist", folder.display())) }
}
