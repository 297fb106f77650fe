//! Keys as file names: every key has one file, every file one key, on a file system that tells `a` from `A`.
//!
//! A key's parts are directories, its last part a file ending in `.json`. Bytes other than letters, digits and a few signs are
//! `%XX`; so is a leading dot, and the dot of a directory that ends in `.json`, which is why `a` and `a.json/b` can both exist.

use std::path::PathBuf;

use crate::Error;

const FILE: &str = ".json";
/// The longest file name that common file systems allow.
const MAX_NAME: usize = 255;

pub(super) fn path(key: &str) -> Result<PathBuf, Error> {
    let mut path = PathBuf::new();
    let mut parts = key.split('/').peekable();
    while let Some(part) = parts.next() {
        let name = if parts.peek().is_some() { directory(part) } else { escape(part) + FILE };
        if name.len() > MAX_NAME {
            return Err(Error::InvalidKey { reason: "a part of it is too long for a file name" });
        }
        path.push(name);
    }
    Ok(path)
}

pub(super) fn directory(part: &str) -> String {
    let name = escape(part);
    match name.strip_suffix(FILE) {
        Some(stem) => format!("{stem}%2Ejson"),
        None => name,
    }
}

/// The part of a key that a file name encodes; `None` for a name that this store did not make.
pub(super) fn part(name: &str, is_directory: bool) -> Option<String> {
    let escaped = if is_directory { name } else { name.strip_suffix(FILE)? };
    let part = unescape(escaped)?;
    let canonical = if is_directory { directory(&part) } else { escape(&part) + FILE };
    (canonical == name).then_some(part)
}

fn escape(part: &str) -> String {
    let mut name = String::with_capacity(part.len());
    for (index, byte) in part.bytes().enumerate() {
        match byte {
            b'.' if index == 0 => name.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'@' | b'+' | b'=' | b',' | b' ' => {
                name.push(char::from(byte));
            }
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(2..)?;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_share_a_file_and_no_key_is_a_directory_of_another() {
        let keys =
            ["a", "a.json", "a.json/b", "a/b", ".a", "%2Ea", "a%2Ejson", "a b", "50%", "日本語/ü", "A", "a.json.json"];
        let files: std::collections::BTreeSet<_> = keys.iter().map(|key| path(key).unwrap()).collect();
        assert_eq!(files.len(), keys.len());
        for file in &files {
            assert!(files.iter().all(|other| other == file || !other.starts_with(file)), "{file:?}");
        }
    }

    #[test]
    fn a_file_name_gives_its_key_part_and_foreign_names_give_none() {
        for name in ["a", "a.json", ".hidden", "x y", "%", "ü", "a.json.json"] {
            assert_eq!(part(&(escape(name) + FILE), false).as_deref(), Some(name));
            assert_eq!(part(&directory(name), true).as_deref(), Some(name));
        }
        assert_eq!(part("README", false), None);
        assert_eq!(part("a%2e.json", false), None);
        assert_eq!(part("a%ZZ.json", false), None);
    }
}
