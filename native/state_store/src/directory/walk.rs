//! Lists a directory page by page, in an order that does not depend on the file system.
//!
//! A page reads only the directories on the path to its start, and those after it.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;

use super::names;
use crate::Error;

/// At most `max` keys with `prefix` that come after `after`, and whether there are more.
pub(super) fn keys(
    objects: &Path,
    prefix: &str,
    after: Option<&str>,
    max: usize,
) -> Result<(Vec<String>, bool), Error> {
    // Only directories that can contain the prefix are read.
    let (above, start) = match prefix.rsplit_once('/') {
        Some((above, start)) => (Some(above), start),
        None => (None, prefix),
    };
    let mut directory = objects.to_owned();
    for part in above.iter().flat_map(|above| above.split('/')) {
        directory.push(names::directory(part));
    }
    let mut walk = Walk { after, max, found: Vec::new(), more: false };
    walk.enter(&directory, above.unwrap_or(""), start)?;
    Ok((walk.found, walk.more))
}

struct Walk<'a> {
    after: Option<&'a str>,
    max: usize,
    found: Vec<String>,
    more: bool,
}

impl Walk<'_> {
    fn enter(&mut self, directory: &Path, above: &str, start: &str) -> Result<(), Error> {
        let fail = |error: &std::io::Error| Error::io("listing a directory", error);
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if super::missing(&error) => return Ok(()),
            Err(error) => return Err(fail(&error)),
        };
        let mut children = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| fail(&error))?;
            let is_directory = entry.file_type().map_err(|error| fail(&error))?.is_dir();
            if let Some(part) = entry.file_name().to_str().and_then(|name| names::part(name, is_directory))
                && part.starts_with(start)
            {
                children.push((part, is_directory, entry.path()));
            }
        }
        // An object comes before the directory of the same name.
        children.sort_unstable();

        for (part, is_directory, path) in children {
            if self.more {
                break;
            }
            let key = if above.is_empty() { part } else { format!("{above}/{part}") };
            if is_directory {
                if self.after.is_none_or(|after| !all_before(&key, after)) {
                    self.enter(&path, &key, "")?;
                }
            } else if self.after.is_none_or(|after| order(&key, after) == Ordering::Greater) {
                if self.found.len() == self.max {
                    self.more = true;
                } else {
                    self.found.push(key);
                }
            }
        }
        Ok(())
    }
}

/// The order of the walk: part by part, a key before those it is a directory of.
fn order(key: &str, other: &str) -> Ordering {
    key.split('/').cmp(other.split('/'))
}

/// Whether all keys in `directory` come before `after`.
fn all_before(directory: &str, after: &str) -> bool {
    let mut theirs = after.split('/');
    for part in directory.split('/') {
        match theirs.next().map(|their| part.cmp(their)) {
            Some(Ordering::Equal) => {}
            Some(ordering) => return ordering == Ordering::Less,
            // `after` is an object above or beside the directory, so everything in the directory comes later.
            None => return false,
        }
    }
    // Either `after` is in the directory, or it is the object of the same name, which comes before it.
    false
}
