//! An image of a registry by its name, and where else it may be asked for.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, ensure};

use super::Repository;

/// The longest tag that the distribution specification allows.
const LONGEST_TAG: usize = 128;

/// An image, as `REGISTRY/NAME:TAG` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it is.
    pub repository: Repository,
    /// What it is called there.
    pub tag: String,
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(written: &str) -> Result<Reference> {
        let step = || format!("cannot use the base `{written}`");
        let (repository, tag) = match written.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (written, ""),
        };
        let repository = Repository::parse(repository).with_context(step)?;
        let is_plain = |it: char| it.is_ascii_alphanumeric() || "_.-".contains(it);
        let is_tag = tag.len() <= LONGEST_TAG && !tag.starts_with(['.', '-']);
        ensure!(
            !tag.is_empty() && is_tag && tag.chars().all(is_plain),
            "{}: it needs a tag, as in docker.io/library/debian:trixie-slim",
            step()
        );
        Ok(Reference { repository, tag: tag.to_string() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.repository, self.tag)
    }
}

/// Where to ask for what is in a registry, as `FROM=TO` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    from: String,
    to: String,
}

impl FromStr for Mirror {
    type Err = Error;

    fn from_str(written: &str) -> Result<Mirror> {
        let (from, to) = written
            .split_once('=')
            .context("it should be REGISTRY=REGISTRY[/PREFIX], as docker.io=127.0.0.1:5000/hub")?;
        let mirror = Mirror { from: from.to_string(), to: to.to_string() };
        Repository::parse(&format!("{from}/any"))?;
        mirror.of("any")?;
        Ok(mirror)
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={}", self.from, self.to)
    }
}

impl Mirror {
    fn of(&self, name: &str) -> Result<Repository> {
        Repository::parse(&format!("{}/{name}", self.to))
    }
}

/// Where `repository` is to be asked for: at the first of `mirrors` that is for its registry.
pub fn mirrored(repository: &Repository, mirrors: &[Mirror]) -> Result<Repository> {
    let mirror = mirrors.iter().find(|it| it.from == repository.registry);
    mirror.map_or_else(|| Ok(repository.clone()), |mirror| mirror.of(&repository.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_repository_and_a_tag() {
        for written in ["docker.io/library/debian:trixie-slim", "127.0.0.1:5000/a/b:1.2_x"] {
            assert_eq!(written.parse::<Reference>().unwrap().to_string(), written);
        }
    }

    #[track_caller]
    fn refuses(written: &str, fault: &str) {
        let error = format!("{:#}", written.parse::<Reference>().unwrap_err());
        assert!(error.starts_with(&format!("cannot use the base `{written}`: ")), "{error}");
        assert!(error.contains(fault), "{error}");
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        refuses("docker.io/library/debian", "it needs a tag");
        refuses("127.0.0.1:5000/debian", "it needs a tag");
        refuses("docker.io/library/debian:", "it needs a tag");
        refuses("docker.io/library/debian:-x", "it needs a tag");
        refuses("docker.io/library/debian:a@sha256:00", "without a digest");
        refuses("library/debian:trixie", "it names no registry");
    }

    #[track_caller]
    fn leads(mirrors: &[&str], to: &str) {
        let mirrors: Vec<Mirror> = mirrors.iter().map(|it| it.parse().unwrap()).collect();
        let repository = Repository::parse("docker.io/library/debian").unwrap();
        assert_eq!(mirrored(&repository, &mirrors).unwrap().to_string(), to);
    }

    #[test]
    fn a_mirror_is_asked_for_its_registry_only() {
        leads(&["docker.io=127.0.0.1:5000/hub"], "127.0.0.1:5000/hub/library/debian");
        leads(&["docker.io=127.0.0.1:5000"], "127.0.0.1:5000/library/debian");
        leads(&["gcr.io=127.0.0.1:5000"], "docker.io/library/debian");
        leads(&["gcr.io=a.io", "docker.io=b.io", "docker.io=c.io"], "b.io/library/debian");
    }

    #[test]
    fn what_is_no_mirror_is_refused() {
        for written in ["docker.io", "=127.0.0.1:5000", "docker.io=", "docker.io=HUB", "a=b.io"] {
            assert!(written.parse::<Mirror>().is_err(), "{written}");
        }
    }
}
