//! What a binary is made of: every crate that cargo compiles for it, std's own included.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::platform::Platform;
use crate::{Context, paths, tools};

/// How the identity of a crate from the registry begins.
const REGISTRY: &str = "registry+";

/// Where a crate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// This repository.
    Local,
    /// crates.io.
    Registry,
    /// The toolchain's source.
    Toolchain,
}

/// A crate, as it was compiled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    pub name: String,
    /// Its own; the toolchain's for crates of std, which have none.
    pub version: String,
    pub source: Source,
    /// Whether none of it is in the binary: it only helped to build.
    pub is_build: bool,
    pub features: Vec<String>,
    /// As SPDX writes it, where the crate says.
    pub license: Option<String>,
    /// SHA-256 of its archive, in hexadecimal, from the lock file.
    pub checksum: Option<String>,
    /// Where in the list the crates are that it is compiled with.
    pub dependencies: Vec<usize>,
}

/// Cargo's plan (<https://doc.rust-lang.org/cargo/reference/unstable.html#unit-graph>).
#[derive(Debug, Deserialize)]
pub struct Graph {
    units: Vec<Unit>,
    roots: Vec<usize>,
}

#[derive(Debug, Deserialize)]
struct Unit {
    pkg_id: String,
    target: Target,
    /// None, if it is for the machine that builds.
    platform: Option<String>,
    features: Vec<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    src_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    index: usize,
}

/// What the lock files and the toolchain know of crates.
#[derive(Debug)]
pub struct Facts {
    checksums: BTreeMap<(String, String), String>,
    toolchain: String,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Facts {
    /// Those of the pinned toolchain.
    pub fn current(context: &Context) -> Result<Facts> {
        Facts::read(&tools::sysroot(context)?)
    }

    /// Reads the lock files of this repository and of the toolchain in `sysroot`.
    pub fn read(sysroot: &Path) -> Result<Facts> {
        let mut checksums = BTreeMap::new();
        for path in [paths::root().join("Cargo.lock"), tools::library(sysroot).join("Cargo.lock")] {
            let what = || format!("cannot read `{}`", path.display());
            let text = fs::read_to_string(&path).with_context(what)?;
            let lock: Lock = toml::from_str(&text).with_context(what)?;
            checksums.extend(lock.package.into_iter().filter_map(|it| {
                let checksum = it.checksum?;
                Some(((it.name, it.version), checksum))
            }));
        }
        let toolchain: toml::Table = toml::from_str(include_str!("../../../rust-toolchain.toml"))?;
        let channel = toolchain["toolchain"]["channel"].as_str();
        let toolchain = channel.context("`rust-toolchain.toml` names no channel")?.to_string();
        Ok(Facts { checksums, toolchain })
    }
}

impl Facts {
    /// Version and checksum of the crate `name`, of which the lock files have one.
    pub fn locked(&self, name: &str) -> Result<(&str, &str)> {
        let found = self.checksums.iter().find(|((it, _), _)| it == name);
        let ((_, version), checksum) =
            found.with_context(|| format!("`Cargo.lock` has no crate `{name}`"))?;
        Ok((version, checksum))
    }
}

impl Graph {
    /// What cargo answers to `--unit-graph`.
    pub fn parse(answer: &str) -> Result<Graph> {
        serde_json::from_str(answer).context("cannot read cargo's unit graph")
    }

    /// The crates of `package` for `platform`: the package itself first, the others by name.
    pub fn crates(&self, package: &str, platform: &Platform, facts: &Facts) -> Result<Vec<Crate>> {
        let is_root = |at: &&usize| {
            let unit = &self.units[**at];
            unit.target.name == package && unit.platform.as_deref() == Some(platform.target)
        };
        let root = self.roots.iter().find(is_root);
        let root = *root.with_context(|| format!("cargo plans no `{package}` for {platform}"))?;
        let reached = self.reached(root);
        let mut ids: Vec<_> = reached.iter().map(|at| &self.units[*at].pkg_id).collect();
        ids.sort_by_key(|id| (**id != self.units[root].pkg_id, parts(id)));
        ids.dedup();
        ids.iter().map(|id| self.one(id, &ids, &reached, facts)).collect()
    }

    fn reached(&self, root: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut waiting = vec![root];
        while let Some(at) = waiting.pop() {
            if reached.insert(at) {
                waiting.extend(self.units[at].dependencies.iter().map(|it| it.index));
            }
        }
        reached
    }

    fn one(
        &self,
        id: &String,
        ids: &[&String],
        reached: &BTreeSet<usize>,
        facts: &Facts,
    ) -> Result<Crate> {
        let units: Vec<_> =
            reached.iter().map(|at| &self.units[*at]).filter(|it| it.pkg_id == *id).collect();
        let mut dependencies: Vec<_> = units
            .iter()
            .flat_map(|unit| &unit.dependencies)
            .map(|it| &self.units[it.index].pkg_id)
            .filter(|it| *it != id)
            .filter_map(|it| ids.iter().position(|id| *id == it))
            .collect();
        dependencies.sort_unstable();
        dependencies.dedup();
        // It may be compiled twice, for std and for us.
        let mut features: Vec<_> = units.iter().flat_map(|unit| &unit.features).cloned().collect();
        features.sort_unstable();
        features.dedup();
        let manifest = manifest(&units[0].target.src_path)?;
        let source = source(id, &manifest);
        let (name, version) = parts(id);
        let checksum = facts.checksums.get(&(name.to_string(), version.to_string()));
        let is_toolchain = source == Source::Toolchain && version == "0.0.0";
        Ok(Crate {
            name: name.to_string(),
            version: if is_toolchain { &facts.toolchain } else { version }.to_string(),
            source,
            is_build: units.iter().all(|it| it.platform.is_none()),
            features,
            license: license(&manifest)?,
            checksum: checksum.filter(|_| source == Source::Registry).cloned(),
            dependencies,
        })
    }
}

/// Name and version of a package: `…#name@version`, or `…/name#version`.
fn parts(id: &str) -> (&str, &str) {
    let (place, rest) = id.rsplit_once('#').unwrap_or(("", id));
    rest.split_once('@').unwrap_or((place.rsplit('/').next().unwrap_or(place), rest))
}

fn source(id: &str, manifest: &Path) -> Source {
    if id.starts_with(REGISTRY) {
        Source::Registry
    } else if manifest.starts_with(paths::root()) {
        Source::Local
    } else {
        Source::Toolchain
    }
}

/// The manifest of the crate that `source` is a file of.
fn manifest(source: &Path) -> Result<PathBuf> {
    let found = source.ancestors().map(|it| it.join("Cargo.toml")).find(|it| it.is_file());
    found.with_context(|| format!("cannot find the Cargo.toml of `{}`", source.display()))
}

fn license(manifest: &Path) -> Result<Option<String>> {
    let what = || format!("cannot read `{}`", manifest.display());
    let text = fs::read_to_string(manifest).with_context(what)?;
    let table: toml::Table = toml::from_str(&text).with_context(what)?;
    let license = table.get("package").and_then(|it| it.get("license"));
    Ok(license.map(|it| match it.as_str() {
        // As it was written before SPDX.
        Some(written) => written.replace(" / ", " OR ").replace('/', " OR "),
        // Only our own take it from a workspace.
        None => env!("CARGO_PKG_LICENSE").to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(id: &str, expected: (&str, &str)) {
        assert_eq!(parts(id), expected);
    }

    #[test]
    fn a_package_is_named_in_three_ways() {
        is("registry+https://github.com/rust-lang/crates.io-index#nix@0.31.3", ("nix", "0.31.3"));
        is("path+file:///pid1/pid1#0.1.0", ("pid1", "0.1.0"));
        let apart = "path+file:///rust/compiler-builtins#compiler_builtins@0.1.160";
        is(apart, ("compiler_builtins", "0.1.160"));
    }
}
