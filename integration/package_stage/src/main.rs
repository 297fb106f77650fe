//! `package_stage REPOSITORY FOLDER` puts what the Hex package holds into FOLDER, which must be absent or
//! empty.
//!
//! The package has the library (`mix_project`) at its root and the Rust crates that its NIFs need in
//! `native/`. Their manifests name nothing else of the workspace: no tests, no benches, no other crates.
//! `Cargo.lock` is reduced to match, so that a build with `--locked` works.

mod files;
mod manifest;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

/// The crates that are built as libraries. Their dependencies are added.
const LIBRARIES: [&str; 2] = ["handoff_nif", "store_nif"];

/// From the root of the repository. `.cargo/config.toml` lets them build on musl.
const ROOT_FILES: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE", ".cargo/config.toml"];

const MIX_FILES: [&str; 4] = ["lib", "mix", "mix.exs", ".formatter.exs"];

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [repository, folder] = arguments.as_slice() else { bail!("usage: package_stage REPOSITORY FOLDER") };
    stage(repository, folder)?;
    lock(folder)
}

fn stage(repository: &Path, folder: &Path) -> Result<()> {
    if let Ok(mut entries) = fs::read_dir(folder) {
        ensure!(entries.next().is_none(), "{} is not empty", folder.display());
    }
    for file in ROOT_FILES {
        files::copy(&repository.join(file), &folder.join(file))?;
    }
    for file in MIX_FILES {
        files::copy(&repository.join("mix_project").join(file), &folder.join(file))?;
    }
    let root = manifest::read(&repository.join("Cargo.toml"))?;
    let crates = manifest::closure(repository, &root, &LIBRARIES)?;
    for name in &crates {
        let (from, to) = (repository.join("native").join(name), folder.join("native").join(name));
        let manifest = manifest::without_tests(manifest::read(&from.join("Cargo.toml"))?);
        files::write(&to.join("Cargo.toml"), manifest.to_string().as_bytes())?;
        files::copy(&from.join("src"), &to.join("src"))?;
    }
    let root = manifest::root(root, repository, &crates)?;
    files::write(&folder.join("Cargo.toml"), root.to_string().as_bytes())?;
    files::copy(&repository.join("Cargo.lock"), &folder.join("Cargo.lock"))
}

/// Has cargo remove from Cargo.lock what these crates do not need. All other versions stay.
fn lock(folder: &Path) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let update = ["update", "--workspace", "--offline"];
    let output = Command::new(cargo).args(update).current_dir(folder).output().context("cargo does not start")?;
    ensure!(
        output.status.success(),
        "cargo update failed in {}:\n{}",
        folder.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn staged_manifests_contain_no_crate_test_or_bench_that_is_not_staged() {
        let folder = tempfile::tempdir().unwrap();
        stage(&repository(), folder.path()).unwrap();
        let crates: Vec<_> =
            fs::read_dir(folder.path().join("native")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(crates.len() > LIBRARIES.len());
        for path in crates {
            let manifest = manifest::read(&path.join("Cargo.toml")).unwrap();
            assert!(
                manifest.get("dev-dependencies").is_none() && manifest.get("bench").is_none(),
                "{}",
                path.display()
            );
        }
        let root = manifest::read(&folder.path().join("Cargo.toml")).unwrap();
        for (name, dependency) in root["workspace"]["dependencies"].as_table().unwrap() {
            if let Some(path) = dependency.get("path") {
                let path = folder.path().join(path.as_str().unwrap());
                assert!(path.join("src/lib.rs").is_file(), "{name} at {}", path.display());
            }
        }
    }

    #[test]
    fn a_folder_with_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "").unwrap();
        assert!(stage(&repository(), folder.path()).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_symbolic_link_is_refused_because_hex_does_not_follow_it() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", from.join("link")).unwrap();
        assert!(files::copy(&from, &to).is_err());
    }
}
