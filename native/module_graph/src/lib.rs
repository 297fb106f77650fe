//! Determines which modules of a crate use which.
//!
//! Modules with the same parent must use each other in one direction only, each together with its submodules.
//! A module and its own submodules may use each other: a submodule is a part of its parent and sees its
//! private items.
//!
//! A module is a file. A file uses the module in which an item is defined: a path through a re-export counts
//! for the file behind it, and a re-export itself does not count, so that a `lib.rs` may be a map of its
//! crate. Test code is left out. Paths inside macro calls are not seen, but the `use` that imports their
//! names is.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// A module's path below the crate's root; the root's is empty.
pub type Module = Vec<String>;

/// The modules of one crate, and for each the modules it uses.
#[derive(Debug, Default)]
pub struct Graph(BTreeMap<Module, BTreeSet<Module>>);

/// The imports and paths of one file.
#[derive(Default)]
struct Source {
    /// Names the file imports or re-exports, with the paths behind them.
    imports: BTreeMap<String, Vec<String>>,
    /// Paths the file uses, re-exports left out.
    paths: Vec<Vec<String>>,
}

impl Graph {
    /// Reads the crate whose sources are below `root`.
    pub fn of_crate(root: &Path) -> io::Result<Graph> {
        let mut sources = Vec::new();
        read_folder(root, &mut Vec::new(), &mut sources)?;
        Graph::of_sources(sources)
    }

    /// Reads sources, each with the path of its module.
    pub fn of_sources(sources: impl IntoIterator<Item = (Module, String)>) -> io::Result<Graph> {
        let mut modules = BTreeMap::new();
        for (module, text) in sources {
            let file = syn::parse_file(&text).map_err(|error| io::Error::other(format!("{module:?}: {error}")))?;
            let mut source = Source::default();
            source.visit_file(&file);
            modules.insert(module, source);
        }
        let uses = |(module, source): (&Module, &Source)| {
            let used = source.paths.iter().filter_map(|path| resolve(&modules, module, path, 8));
            (module.clone(), used.filter(|used| used != module).collect())
        };
        Ok(Graph(modules.iter().map(uses).collect()))
    }

    /// How many modules there are, and how many pairs of them in which one uses the other.
    pub fn size(&self) -> (usize, usize) {
        (self.0.len(), self.0.values().map(BTreeSet::len).sum())
    }

    /// The cycles among modules with the same parent, each module together with its submodules.
    pub fn cycles(&self) -> Vec<String> {
        let mut siblings: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, used) in self.0.iter().flat_map(|(module, used)| used.iter().map(move |used| (module, used))) {
            let common = module.iter().zip(used).take_while(|(one, other)| one == other).count();
            if common < module.len().min(used.len()) {
                siblings.entry(module[..=common].to_vec()).or_default().insert(used[..=common].to_vec());
            }
        }
        let pairs = siblings.iter().flat_map(|(module, used)| used.iter().map(move |used| (module, used)));
        let circular = pairs.filter(|(module, used)| reaches(&siblings, used, module));
        circular.map(|(module, used)| format!("{} -> {}", module.join("::"), used.join("::"))).collect()
    }
}

fn reaches(graph: &BTreeMap<Module, BTreeSet<Module>>, from: &Module, to: &Module) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            open.extend(graph.get(module).into_iter().flatten());
        }
    }
    false
}

fn read_folder(folder: &Path, module: &mut Module, sources: &mut Vec<(Module, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_root = module.is_empty() && (stem == "lib" || stem == "main" && !folder.join("lib.rs").exists());
        // Programs are crates of their own.
        let is_program = module.is_empty() && (stem == "bin" || stem == "main");
        if is_root {
            sources.push((Vec::new(), fs::read_to_string(&path)?));
        } else if !is_program && stem != "tests" {
            module.push(stem);
            if path.is_dir() {
                read_folder(&path, module, sources)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push((module.clone(), fs::read_to_string(&path)?));
            }
            module.pop();
        }
    }
    Ok(())
}

/// The module that defines `path`, as read in `module`; `None` for other crates.
fn resolve(modules: &BTreeMap<Module, Source>, module: &Module, path: &[String], depth: u8) -> Option<Module> {
    let mut at = module.clone();
    let mut rest = path;
    loop {
        match rest.split_first() {
            Some((step, after)) if step == "crate" => (at, rest) = (Vec::new(), after),
            Some((step, after)) if step == "self" => rest = after,
            Some((step, after)) if step == "super" => {
                at.pop()?;
                rest = after;
            }
            _ => break,
        }
    }
    let anchored = rest.len() < path.len();
    loop {
        let Some((step, after)) = rest.split_first() else {
            return Some(at);
        };
        let child: Module = at.iter().chain([step]).cloned().collect();
        if modules.contains_key(&child) {
            (at, rest) = (child, after);
            continue;
        }
        if !anchored && rest.len() == path.len() {
            return None;
        }
        let import = modules[&at].imports.get(step).filter(|_| depth > 0);
        return match import {
            Some(behind) => {
                let behind: Vec<String> = behind.iter().chain(after).cloned().collect();
                resolve(modules, &at, &behind, depth - 1)
            }
            None => Some(at),
        };
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|cfg| cfg == "test")
    })
}

impl Visit<'_> for Source {
    fn visit_item(&mut self, item: &Item) {
        match item {
            Item::Mod(ItemMod { attrs, .. }) if is_test(attrs) => {}
            Item::Fn(function) if is_test(&function.attrs) => {}
            Item::Impl(implementation) if is_test(&implementation.attrs) => {}
            Item::Use(ItemUse { attrs, vis, tree, .. }) if !is_test(attrs) => {
                let re_export = !matches!(vis, Visibility::Inherited);
                self.import(&mut Vec::new(), tree, re_export);
            }
            Item::Use(_) => {}
            other => visit::visit_item(self, other),
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

impl Source {
    fn import(&mut self, before: &mut Vec<String>, tree: &UseTree, re_export: bool) {
        let (last, known_as) = match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.import(before, &path.tree, re_export);
                before.pop();
                return;
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(before, tree, re_export));
                return;
            }
            UseTree::Name(name) => (Some(name.ident.to_string()), name.ident.to_string()),
            UseTree::Rename(rename) => (Some(rename.ident.to_string()), rename.rename.to_string()),
            UseTree::Glob(_) => (None, "*".to_owned()),
        };
        let path: Vec<String> = before.iter().cloned().chain(last.filter(|last| last != "self")).collect();
        let known_as = if known_as == "self" { before.last().cloned().unwrap_or_default() } else { known_as };
        if !re_export {
            self.paths.push(path.clone());
        }
        self.imports.insert(known_as, path);
    }
}
