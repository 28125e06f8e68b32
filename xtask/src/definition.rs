//! What an image is to be: `images/<name>/image.toml`, as written.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Error, Result, anyhow, ensure};
use serde::Deserialize;

use crate::paths;
use crate::platform::{PLATFORMS, Platform};
use crate::registry::Reference;

/// A definition, as somebody wrote it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The name of the image, which is the name of its folder.
    #[serde(skip)]
    pub name: String,
    /// One line for tables and for `org.opencontainers.image.description`.
    pub summary: String,
    /// Whether its tags are also given without its name. One image at most.
    #[serde(default)]
    pub default: bool,
    /// What it stands on.
    #[serde(default, deserialize_with = "base")]
    pub base: Base,
    /// The platforms, in the order of the platform table; all nine if left out.
    #[serde(default = "every_platform", deserialize_with = "platforms")]
    pub platforms: Vec<&'static Platform>,
    /// What it holds besides `/sbin/pid1` and what its base holds.
    #[serde(default)]
    pub contents: Vec<Content>,
    /// The default arguments of the entrypoint.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Variables of the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `USER`, as in a Dockerfile.
    pub user: Option<String>,
    /// `WORKDIR`, as in a Dockerfile.
    pub workdir: Option<String>,
    /// What must be true of it when it runs, besides what is true of every image.
    #[serde(default)]
    pub smoke: Vec<Smoke>,
}

/// What an image stands on.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// Nothing, which is written `scratch`.
    #[default]
    Scratch,
    /// Another definition, by its name.
    Image(String),
    /// An image in a registry, which is written with its registry and tag.
    Registry(Reference),
}

/// Files an image can ask for, made here from `Cargo.lock` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// `/etc/ssl/certs/ca-certificates.crt`: Mozilla's roots.
    CaCertificates,
    /// `/usr/share/zoneinfo`: the time zones.
    TimeZones,
    /// `/etc/passwd` and `/etc/group` with root, nobody and nonroot, and their homes.
    Users,
    /// `/tmp`, for everybody.
    Tmp,
    /// The blog's programs, in `/bin`.
    TestPrograms,
}

/// One smoke test: what to run in the image, under its entrypoint, and what comes of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smoke {
    /// The promise it checks.
    pub name: String,
    /// The command, as it would stand behind `docker run IMAGE`.
    pub run: Vec<String>,
    /// The exit code.
    #[serde(default)]
    pub exit: i32,
    /// All that it prints, where that matters.
    pub stdout: Option<String>,
    /// All that it complains of, where that matters.
    pub stderr: Option<String>,
}

fn base<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Base, D::Error> {
    let written = String::deserialize(deserializer)?;
    match written.as_str() {
        "scratch" => Ok(Base::Scratch),
        // No folder's name has one.
        _ if written.contains('/') => {
            let parsed: Result<Reference> = written.parse();
            parsed.map(Base::Registry).map_err(|err| serde::de::Error::custom(format!("{err:#}")))
        }
        _ => Ok(Base::Image(written)),
    }
}

fn every_platform() -> Vec<&'static Platform> {
    PLATFORMS.iter().collect()
}

fn platforms<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<&'static Platform>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    for name in &names {
        let parsed: Result<&'static Platform, _> = name.parse();
        parsed.map_err(|err| serde::de::Error::custom(format!("`{name}`: {err}")))?;
    }
    Ok(PLATFORMS.iter().filter(|platform| names.contains(&platform.to_string())).collect())
}

/// Every definition of the repository, bases before what stands on them.
pub fn all() -> Result<Vec<Definition>> {
    let mut definitions = Vec::new();
    for entry in fs::read_dir(paths::images()).context("cannot list `images`")? {
        let folder = entry.context("cannot list `images`")?.path();
        if folder.join("image.toml").exists() {
            let name = folder.file_name().expect("an entry has a name").to_string_lossy();
            let file = format!("images/{name}/image.toml");
            let text = fs::read_to_string(folder.join("image.toml"))
                .with_context(|| format!("cannot read `{file}`"))?;
            definitions.push(parse(&name, &text).with_context(|| format!("cannot use `{file}`"))?);
        }
    }
    ordered(definitions)
}

/// Reads one definition.
pub fn parse(name: &str, text: &str) -> Result<Definition> {
    let mut definition: Definition = toml::from_str(text)?;
    definition.name = name.to_string();
    ensure!(!definition.platforms.is_empty(), "platforms: names none; leave it out for all nine");
    for smoke in &definition.smoke {
        ensure!(!smoke.run.is_empty(), "smoke `{}`: run: names no command", smoke.name);
    }
    for name in definition.env.keys() {
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        ensure!(is_name, "env: `{name}` cannot be the name of a variable");
    }
    Ok(definition)
}

/// Sorts bases before what stands on them, otherwise by name, and checks that each base is there
/// and has the platforms that are asked of it.
fn ordered(mut rest: Vec<Definition>) -> Result<Vec<Definition>> {
    // What needs no registry comes first.
    let is_pulled = |it: &Definition| matches!(it.base, Base::Registry(_));
    rest.sort_by(|a, b| (is_pulled(a), &a.name).cmp(&(is_pulled(b), &b.name)));
    let mut done: Vec<Definition> = Vec::new();
    while !rest.is_empty() {
        let ready = rest.iter().position(|definition| match &definition.base {
            Base::Scratch | Base::Registry(_) => true,
            Base::Image(base) => done.iter().any(|it| it.name == *base),
        });
        let Some(ready) = ready else { return Err(unknown_base(&rest[0], &done)) };
        let definition = rest.remove(ready);
        check_against_base(&definition, &done)
            .with_context(|| format!("cannot use `images/{}/image.toml`", definition.name))?;
        done.push(definition);
    }
    let defaults: Vec<_> = done.iter().filter(|it| it.default).map(|it| &it.name).collect();
    ensure!(defaults.len() < 2, "only one image can be the default, not {defaults:?}");
    Ok(done)
}

fn unknown_base(definition: &Definition, done: &[Definition]) -> Error {
    let Definition { name, base, .. } = definition;
    let Base::Image(base) = base else { unreachable!("everything else is known") };
    let mut known: Vec<_> = done.iter().map(|base| base.name.as_str()).collect();
    known.push("scratch");
    anyhow!(
        "cannot use `images/{name}/image.toml`: base: `{base}` is no image that can be built \
         before it, those are {}",
        known.join(", ")
    )
}

fn check_against_base(definition: &Definition, done: &[Definition]) -> Result<()> {
    let mut lowest = definition;
    while let Base::Image(name) = &lowest.base {
        lowest = done.iter().find(|it| it.name == *name).expect("a base is done before");
        for platform in &definition.platforms {
            let is_there = lowest.platforms.contains(platform);
            ensure!(is_there, "platforms: its base `{name}` has no {platform}");
        }
    }
    if let Base::Registry(base) = &lowest.base {
        // A distribution has these files, or packages of them, and knows better where they belong.
        ensure!(definition.contents.is_empty(), "contents: it stands on `{base}`, and gets none");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refuses(files: &[(&str, &str)], expected: &str) {
        let parsed: Result<Vec<_>> = files.iter().map(|(name, text)| parse(name, text)).collect();
        let error = parsed.and_then(ordered).unwrap_err();
        assert_eq!(format!("{error:#}").trim(), expected.trim());
    }

    #[test]
    fn the_repository_s_definitions_are_in_order() {
        let names: Vec<_> = all().unwrap().into_iter().map(|it| it.name).collect();
        let expected = [
            "scratch",
            "static",
            "docker-testing",
            "alpine",
            "busybox",
            "debian",
            "distroless-base",
            "distroless-static",
            "ubuntu",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        refuses(
            &[("a", "summary = 'x'\ncolour = 'red'\n")],
            "TOML parse error at line 2, column 1
  |
2 | colour = 'red'
  | ^^^^^^
unknown field `colour`, expected one of `summary`, `default`, `base`, `platforms`, `contents`, \
             `cmd`, `env`, `user`, `workdir`, `smoke`",
        );
    }

    #[test]
    fn an_unknown_base_names_the_known_ones() {
        refuses(
            &[("a", "summary = ''"), ("b", "summary = ''\nbase = 'c'")],
            "cannot use `images/b/image.toml`: base: `c` is no image that can be built before it, \
             those are a, scratch",
        );
    }

    #[test]
    fn a_base_without_a_tag_is_refused() {
        let error = parse("a", "summary = ''\nbase = 'docker.io/library/debian'").unwrap_err();
        assert!(format!("{error:#}").contains("it needs a tag"), "{error:#}");
    }

    #[test]
    fn contents_do_not_go_onto_a_distribution() {
        refuses(
            &[
                ("a", "summary = ''\nbase = 'docker.io/library/debian:trixie'"),
                ("b", "summary = ''\nbase = 'a'\ncontents = ['tmp']"),
            ],
            "cannot use `images/b/image.toml`: contents: it stands on \
             `docker.io/library/debian:trixie`, and gets none",
        );
    }

    #[test]
    fn a_platform_the_base_lacks_is_named() {
        refuses(
            &[
                ("a", "summary = ''\nplatforms = ['linux/386']"),
                ("b", "summary = ''\nbase = 'a'\nplatforms = ['linux/386', 'linux/arm/v7']"),
            ],
            "cannot use `images/b/image.toml`: platforms: its base `a` has no linux/arm/v7",
        );
    }
}
