//! Copies of files and folders.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Copies a file, or a folder with all in it. Hex does not follow symbolic links, so a package must have
/// none.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let kind = fs::symlink_metadata(from).with_context(|| format!("cannot read {}", from.display()))?.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if !kind.is_file() {
        bail!("{} is neither a file nor a folder", from.display());
    }
    write(to, &fs::read(from)?)
}

/// Writes a file, with the folders that it needs.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
