//! `NOTES.md`: what is new, from the changelog, and how to check what one has got.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use super::digests::Digests;
use crate::paths;

/// The text of a release of the build that `digests` are of.
pub fn notes(digests: &Digests) -> Result<String> {
    let path = paths::root().join("CHANGELOG.md");
    let changelog =
        fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let news = section(&changelog, &digests.version).context("cannot use `CHANGELOG.md`")?;
    Ok(render(digests, news))
}

/// What the changelog says of `version`, or what it has collected for the next one.
fn section<'a>(changelog: &'a str, version: &str) -> Result<&'a str> {
    let find = |name: &str| {
        let (_, rest) = changelog.split_once(&format!("\n## [{name}]"))?;
        let (_, rest) = rest.split_once('\n')?;
        Some(rest.split("\n## [").next().unwrap_or(rest).trim())
    };
    find(version)
        .or_else(|| find("Unreleased"))
        .with_context(|| format!("it has neither a section [{version}] nor [Unreleased]"))
}

fn render(digests: &Digests, news: &str) -> String {
    let Digests { version, revision, .. } = digests;
    let mut text = format!("# pid1 {version}\n\n{news}\n\n### Images\n\n");
    // Writing to a string cannot fail.
    for image in &digests.images {
        let _ = writeln!(text, "- `{}`", image.reference);
    }
    text.push_str("\n### Check\n\n```sh\nsha256sum --check --ignore-missing SHA256SUMS\n```\n");
    if let Some(revision) = revision {
        let _ = writeln!(text, "\nBuilt from {revision}.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: &str =
        "# Changelog\n\n## [Unreleased]\n\nnew\n\n## [1.0.0] - 2026-01-01\n\n### Added\n\n- a\n";

    #[track_caller]
    fn says(version: &str, expected: &str) {
        assert_eq!(section(CHANGELOG, version).unwrap(), expected);
    }

    #[test]
    fn a_released_version_has_its_own_section() {
        says("1.0.0", "### Added\n\n- a");
    }

    #[test]
    fn a_version_to_come_has_what_was_collected() {
        says("1.1.0", "new");
    }

    #[test]
    fn a_changelog_without_either_is_refused() {
        let error = section("# Changelog\n", "1.0.0").unwrap_err().to_string();
        assert_eq!(error, "it has neither a section [1.0.0] nor [Unreleased]");
    }
}
