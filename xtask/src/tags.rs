//! Which tags may move to what was built, given what is published: the tags of one version never
//! change, and those of many never go back to a lower one.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use oci_spec::image::{ANNOTATION_BASE_IMAGE_DIGEST, ANNOTATION_VERSION, ImageIndex};
use semver::Version;

use crate::flags::RegistryOptions;
use crate::plan::Plan;
use crate::registry::{Registry, Repository};
use crate::{Context, base, version};

/// What a tag points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Of its index.
    pub digest: String,
    /// The version that it says it is.
    pub version: Option<Version>,
    /// The digest of the base that it says it stands on.
    pub base: Option<String>,
}

/// What becomes of a tag that has another image of the same version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// It stays: that image is this one on a newer base.
    Stays,
    /// It moves: this image is the newer one.
    Moves,
}

/// What may become of an image's tags.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Those that are at the image, or may be moved to it.
    pub free: Vec<String>,
    /// Those that have a version that must not give way, and which.
    pub left: Vec<(String, Version)>,
    /// Those of just this version that have another image, and which.
    pub taken: Vec<(String, String)>,
}

/// What is in the repository at the plan's tags.
pub fn look(
    context: &Context,
    plan: &Plan,
    repository: &Repository,
    options: &RegistryOptions,
) -> Result<BTreeMap<String, Published>> {
    let registry = Registry::new(&context.ui, repository.clone(), options)?;
    let work = async {
        let registry = registry.connect(&options.transport).await?;
        let mut found = BTreeMap::new();
        for tag in plan.images.iter().flat_map(|it| &it.tags) {
            if let Some(published) = published(&registry, tag).await? {
                found.insert(tag.clone(), published);
            }
        }
        Ok(found)
    };
    base::wait_for(context, work)
        .with_context(|| format!("cannot tell what is published in `{repository}`"))
}

/// What the tag points at, if there is one.
async fn published(registry: &Registry, tag: &str) -> Result<Option<Published>> {
    let what = format!("the tag `{tag}`");
    let Some(digest) = registry.digest_of(tag, &what).await? else { return Ok(None) };
    let document = registry.document(&digest, &what).await?;
    // Somebody else's image may be anything, and says nothing of versions.
    let index = ImageIndex::from_reader(document.bytes.as_slice()).ok();
    let annotations = index.and_then(|it| it.annotations().clone()).unwrap_or_default();
    let version = annotations.get(ANNOTATION_VERSION).and_then(|it| Version::parse(it).ok());
    let base = annotations.get(ANNOTATION_BASE_IMAGE_DIGEST).cloned();
    Ok(Some(Published { digest, version, base }))
}

/// What may become of `tags`, which are to point at `digest`, of `version`.
pub fn judge(
    tags: &[String],
    (version, digest): (&Version, &str),
    there: &BTreeMap<String, Published>,
    same: Same,
) -> Judged {
    let mut judged = Judged::default();
    for tag in tags {
        let free = || tag.clone();
        match there.get(tag) {
            Some(it) if it.digest == digest => judged.free.push(free()),
            Some(it) if same == Same::Stays && version::is_own(version, tag) => {
                judged.taken.push((tag.clone(), it.digest.clone()));
            }
            Some(Published { version: Some(its), .. }) if !gives_way(its, version, same) => {
                judged.left.push((tag.clone(), its.clone()));
            }
            _ => judged.free.push(free()),
        }
    }
    judged
}

/// Says which tags stay where they are, and why.
pub fn say_left(context: &Context, judged: &Judged) {
    for (tag, version) in &judged.left {
        context.ui.say(format!("{tag}: left where it is, at version {version}"));
    }
}

fn gives_way(its: &Version, ours: &Version, same: Same) -> bool {
    match its.cmp_precedence(ours) {
        Ordering::Less => true,
        Ordering::Equal => same == Same::Moves,
        Ordering::Greater => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(tag: &str, digest: &str, version: Option<&str>) -> BTreeMap<String, Published> {
        let version = version.map(|it| Version::parse(it).unwrap());
        let digest = digest.to_string();
        [(tag.to_string(), Published { digest, version, base: None })].into()
    }

    #[track_caller]
    fn check(tag: &str, there: &BTreeMap<String, Published>, same: Same, expected: &str) {
        let version = Version::parse("1.2.3").unwrap();
        let judged = judge(&[tag.to_string()], (&version, "sha256:new"), there, same);
        let Judged { free, left, taken } = judged;
        let left = left.iter().map(|(tag, version)| format!("{tag} left at {version}"));
        let taken = taken.iter().map(|(tag, digest)| format!("{tag} taken by {digest}"));
        let said: Vec<_> = free.into_iter().chain(left).chain(taken).collect();
        assert_eq!(said, [expected]);
    }

    #[test]
    fn a_general_tag_moves_on_and_never_back() {
        let at = |version| there("1-static", "sha256:old", version);
        check("1-static", &BTreeMap::new(), Same::Stays, "1-static");
        check("1-static", &at(None), Same::Stays, "1-static");
        check("1-static", &at(Some("1.2.3-rc.1")), Same::Stays, "1-static");
        check("1-static", &at(Some("1.1.9")), Same::Stays, "1-static");
        check("1-static", &at(Some("1.10.0")), Same::Stays, "1-static left at 1.10.0");
        check("1-static", &at(Some("1.10.0")), Same::Moves, "1-static left at 1.10.0");
    }

    #[test]
    fn what_a_refresh_has_moved_stays_when_its_release_is_run_again() {
        let refreshed = there("debian", "sha256:old", Some("1.2.3"));
        check("debian", &refreshed, Same::Stays, "debian left at 1.2.3");
        check("debian", &refreshed, Same::Moves, "debian");
    }

    #[test]
    fn a_version_that_is_published_is_what_it_is() {
        let own = |digest| there("1.2.3-static", digest, Some("1.2.3"));
        check("1.2.3-static", &own("sha256:new"), Same::Stays, "1.2.3-static");
        let taken = "1.2.3-static taken by sha256:old";
        check("1.2.3-static", &own("sha256:old"), Same::Stays, taken);
        check("1.2.3", &there("1.2.3", "sha256:x", None), Same::Stays, "1.2.3 taken by sha256:x");
    }
}
