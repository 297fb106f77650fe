//! Derives the manifests of the package from those of the workspace.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use toml_edit::{Array, DocumentMut, Item, Table};

/// Reads a manifest.
pub fn read(path: &Path) -> Result<DocumentMut> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is no TOML", path.display()))
}

/// The crates of the workspace that `libraries` need, they themselves included.
pub fn closure(repository: &Path, root: &DocumentMut, libraries: &[&str]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open: Vec<String> = libraries.iter().map(|&name| name.into()).collect();
    while let Some(name) = open.pop() {
        if found.contains(&name) {
            continue;
        }
        let manifest = read(&repository.join("native").join(&name).join("Cargo.toml"))?;
        open.extend(dependencies(&manifest).filter(|name| path_of(root, name).is_some()));
        found.insert(name);
    }
    Ok(found)
}

/// A crate's manifest without the parts for its tests and benches.
pub fn without_tests(mut manifest: DocumentMut) -> DocumentMut {
    for table in ["dev-dependencies", "bench", "test", "example"] {
        manifest.remove(table);
    }
    manifest
}

/// The workspace's manifest with `crates` as its only members, and with the dependencies that they use.
pub fn root(mut root: DocumentMut, repository: &Path, crates: &BTreeSet<String>) -> Result<DocumentMut> {
    let mut used = BTreeSet::new();
    for name in crates {
        used.extend(dependencies(&read(&repository.join("native").join(name).join("Cargo.toml"))?));
    }
    for name in crates {
        let expected = format!("native/{name}");
        ensure!(path_of(&root, name).is_none_or(|path| path == expected), "{name} is not in {expected}");
    }
    let members: Array = crates.iter().map(|name| format!("native/{name}")).collect();
    let workspace = table(&mut root, "workspace")?;
    workspace.insert("members", members.into());
    workspace
        .get_mut("dependencies")
        .and_then(Item::as_table_mut)
        .context("the workspace has no dependencies")?
        .retain(|name, _| used.contains(name));
    // Only release builds are made, and cargo warns about a profile for an absent crate.
    table(&mut root, "profile")?.retain(|name, _| name == "release");
    Ok(root)
}

fn table<'a>(manifest: &'a mut DocumentMut, name: &str) -> Result<&'a mut Table> {
    manifest.get_mut(name).and_then(Item::as_table_mut).with_context(|| format!("there is no [{name}]"))
}

fn dependencies(manifest: &DocumentMut) -> impl Iterator<Item = String> + '_ {
    let table = manifest.get("dependencies").and_then(Item::as_table);
    table.into_iter().flat_map(|table| table.iter().map(|(name, _)| name.to_owned()))
}

fn path_of<'a>(root: &'a DocumentMut, name: &str) -> Option<&'a str> {
    root.get("workspace")?.get("dependencies")?.get(name)?.get("path")?.as_str()
}
