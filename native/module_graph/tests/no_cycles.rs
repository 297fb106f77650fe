//! No crate of the workspace has a module cycle.

use std::path::Path;

use module_graph::Graph;

#[test]
fn no_crate_has_a_module_cycle() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manifest = std::fs::read_to_string(workspace.join("Cargo.toml")).expect("the workspace's manifest");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).expect("a line with the members");
    let crates: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(crates.contains(&"native/module_graph"), "{crates:?}");
    let mut cycles = Vec::new();
    for name in crates {
        let graph = Graph::of_crate(&workspace.join(name).join("src")).expect("the crate's sources");
        let (modules, uses) = graph.size();
        println!("{name:24} {modules:3} modules, {uses:3} uses, {} in cycles", graph.cycles().len());
        cycles.extend(graph.cycles().iter().map(|uses| format!("{name}: {uses}")));
    }
    assert!(cycles.is_empty(), "modules that use each other:\n{}", cycles.join("\n"));
}

fn graph(files: &[(&str, &str)]) -> Graph {
    let module = |path: &str| path.split("::").filter(|step| !step.is_empty()).map(str::to_owned).collect();
    Graph::of_sources(files.iter().map(|(path, text)| (module(path), (*text).to_owned()))).expect("Rust")
}

#[test]
fn a_cycle_through_imports_paths_and_re_exports_is_found() {
    let files = [
        ("", "mod a; mod b; mod c; pub use c::C;"),
        ("a", "use super::b::{self, B};"),
        ("b", "fn b() { crate::c::c() }"),
        ("c", "use crate::{a::A, C as Own}; pub struct C;"),
    ];
    assert_eq!(graph(&files).cycles(), ["a -> b", "b -> c", "c -> a"]);
    let through_root = [("", "mod a; mod b; pub use b::B;"), ("a", "use crate::B;"), ("b", "use crate::a;")];
    assert_eq!(graph(&through_root).cycles(), ["a -> b", "b -> a"]);
}

#[test]
fn a_module_counts_with_everything_below_it() {
    let files = [
        ("", "mod a; mod b;"),
        ("a", "mod inner; fn f() { inner::g() }"),
        ("a::inner", "use super::f; use crate::b::B;"),
        ("b", "use crate::a::f;"),
    ];
    assert_eq!(graph(&files).cycles(), ["a -> b", "b -> a"]);
    assert!(graph(&files[..3]).cycles().is_empty(), "a part of its parent");
}

#[test]
fn tests_and_re_exports_form_no_cycle() {
    let files = [
        ("", "mod a; pub use a::A;"),
        ("a", "use crate::b; #[cfg(test)] mod tests { use crate::c; }"),
        ("b", "#[cfg(test)] use crate::a;"),
        ("c", "use crate::A;"),
    ];
    assert!(graph(&files).cycles().is_empty());
}
