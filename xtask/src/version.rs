//! The version being built, and the tags an image of it carries.

use anyhow::{Context, Result};
use semver::Version;

/// The tag of the default image of the highest version.
pub const LATEST: &str = "latest";

/// The version of the workspace: what `Cargo.toml` says.
pub fn current() -> Result<Version> {
    Version::parse(env!("CARGO_PKG_VERSION")).context("cannot read the version in `Cargo.toml`")
}

/// The tags of the image `name`: `1.2.3-debian 1.2-debian 1-debian debian`, and for the default
/// image the same without the name. A prerelease moves only its own full tag.
pub fn tags(version: &Version, name: &str, is_default: bool) -> Vec<String> {
    let Version { major, minor, .. } = version;
    let mut numbers = vec![number(version)];
    if version.pre.is_empty() {
        numbers.extend([format!("{major}.{minor}"), major.to_string()]);
    }
    let mut tags: Vec<_> = numbers.iter().map(|number| format!("{number}-{name}")).collect();
    if version.pre.is_empty() {
        tags.push(name.to_string());
    }
    if is_default {
        tags.extend(numbers);
        if version.pre.is_empty() {
            tags.push(LATEST.to_string());
        }
    }
    tags
}

/// Whether the tag is of just this version, and of none that follows.
pub fn is_own(version: &Version, tag: &str) -> bool {
    let rest = tag.strip_prefix(&number(version));
    rest.is_some_and(|it| it.is_empty() || it.starts_with('-'))
}

/// The whole version, as a tag can be.
fn number(version: &Version) -> String {
    version.to_string().replace('+', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(version: &str, is_default: bool, expected: &str) {
        let version = Version::parse(version).unwrap();
        assert_eq!(tags(&version, "debian", is_default).join(" "), expected);
    }

    #[test]
    fn a_release_moves_every_tag_that_covers_it() {
        check("1.2.3", false, "1.2.3-debian 1.2-debian 1-debian debian");
    }

    #[test]
    fn the_default_image_has_the_plain_tags_too() {
        check("1.2.3", true, "1.2.3-debian 1.2-debian 1-debian debian 1.2.3 1.2 1 latest");
    }

    #[test]
    fn a_prerelease_moves_only_its_own_tag() {
        check("1.2.3-rc.1", false, "1.2.3-rc.1-debian");
    }

    #[test]
    fn build_metadata_is_spelled_as_a_tag_can_be() {
        check("1.2.3+7", false, "1.2.3_7-debian 1.2-debian 1-debian debian");
    }

    #[test]
    fn the_full_tags_are_the_version_s_own() {
        let version = Version::parse("1.2.3").unwrap();
        let tags = tags(&version, "debian", true);
        let own: Vec<_> = tags.iter().filter(|it| is_own(&version, it)).collect();
        assert_eq!(own, ["1.2.3-debian", "1.2.3"]);
        assert!(!is_own(&version, "1.2.30-debian"));
    }
}
