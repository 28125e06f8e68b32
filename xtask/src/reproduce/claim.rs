//! What was published, and what it says it was built from.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use oci_spec::image::{
    ANNOTATION_BASE_IMAGE_DIGEST, ANNOTATION_BASE_IMAGE_NAME, ANNOTATION_CREATED,
    ANNOTATION_REVISION, ANNOTATION_TITLE, ANNOTATION_VERSION, ImageIndex,
};
use semver::Version;
use tempfile::TempDir;

use super::released::Released;
use crate::flags::Reproduce;
use crate::oci::layout::{self, Layout};
use crate::platform::Platform;
use crate::registry::Reference;
use crate::{Context, attach, paths, pull, release, version};

/// What somebody published. All of it is here, whatever it was.
pub struct Claim {
    /// As it was asked for.
    written: String,
    /// The commit that it says it was built from.
    pub revision: String,
    /// The time that it says its commit has.
    pub created: Timestamp,
    /// Those to compare.
    pub platforms: Vec<&'static Platform>,
    is_restricted: bool,
    /// What it is.
    pub subject: Subject,
}

/// What can be reproduced.
pub enum Subject {
    /// An image.
    Image(Published),
    /// The files of a release.
    Release(Released),
}

/// An image that was published.
pub struct Published {
    /// Of its index.
    digest: String,
    /// What its definition is called.
    pub name: String,
    /// What it says it stands on, and the digest of that, if it is an image in a registry.
    pub base: Option<(Reference, String)>,
    /// Its bytes.
    pub layout: Layout,
    /// Where they lie, if they were pulled.
    _pulled: Option<TempDir>,
}

impl Claim {
    /// Reads the release or the layout in the folder `written`, or pulls the image of that name.
    pub fn read(context: &Context, written: &str, flags: &Reproduce) -> Result<Claim> {
        let folder = Path::new(written);
        if folder.join(release::DIGESTS).is_file() {
            return Claim::of_release(written, folder, flags);
        }
        let (layout, pulled) = if folder.is_dir() {
            (Layout::open(folder)?, None)
        } else {
            let (repository, reference) = attach::image(written)?;
            let parent = paths::reproduce();
            std::fs::create_dir_all(&parent)
                .with_context(|| format!("cannot create `{}`", parent.display()))?;
            let place = tempfile::tempdir_in(&parent)
                .with_context(|| format!("cannot create a folder in `{}`", parent.display()))?;
            let layout = place.path().join("layout");
            let from = (&repository, reference.as_str(), &flags.transport);
            pull::to_layout(context, from, &flags.platforms.platforms, &layout)?;
            (Layout::open(&layout)?, Some(place))
        };
        let index = layout.index()?;
        let says = Says::new(&index)?;
        if let Some(tag) = attach::tag(written).filter(|_| !folder.is_dir()) {
            says.ensure_named(tag)?;
        }
        let digest = layout.index_descriptor()?.digest().to_string();
        Ok(Claim {
            written: written.to_string(),
            revision: says.revision,
            created: says.created,
            platforms: platforms(&index, &flags.platforms.platforms)?,
            is_restricted: !flags.platforms.platforms.is_empty(),
            subject: Subject::Image(Published {
                digest,
                name: says.name,
                base: says.base,
                layout,
                _pulled: pulled,
            }),
        })
    }

    fn of_release(written: &str, folder: &Path, flags: &Reproduce) -> Result<Claim> {
        ensure!(
            flags.platforms.platforms.is_empty(),
            "its checksums are those of all its platforms, so it cannot be built for less; leave \
             out `--platform`"
        );
        let (released, says) = Released::read(folder)?;
        Ok(Claim {
            written: written.to_string(),
            revision: commit(&says.revision.unwrap_or_default())?,
            created: time(&says.created)?,
            platforms: released.platforms.clone(),
            is_restricted: false,
            subject: Subject::Release(released),
        })
    }

    /// What was asked for, with its digest if it has one.
    pub fn reference(&self) -> String {
        let named = self.written.split('@').next().unwrap_or_default();
        match &self.subject {
            Subject::Image(Published { digest, .. }) => format!("{named}@{digest}"),
            Subject::Release(_) => self.written.clone(),
        }
    }

    /// ` for PLATFORM…`, if that was not all of it.
    pub fn restriction(&self) -> String {
        if !self.is_restricted {
            return String::new();
        }
        let names: Vec<_> = self.platforms.iter().map(ToString::to_string).collect();
        format!(" for {}", names.join(", "))
    }
}

/// What an index says about where it comes from. It may come from anybody: what is said here
/// becomes words of command lines.
#[derive(Debug, PartialEq, Eq)]
struct Says {
    name: String,
    version: Version,
    revision: String,
    created: Timestamp,
    base: Option<(Reference, String)>,
}

impl Says {
    fn new(index: &ImageIndex) -> Result<Says> {
        let nothing = HashMap::new();
        let annotations = index.annotations().as_ref().unwrap_or(&nothing);
        let says = |name: &str| {
            annotations.get(name).with_context(|| {
                format!("it does not say what it was built from: its index has no `{name}`")
            })
        };
        let revision = commit(says(ANNOTATION_REVISION)?)?;
        let title = says(ANNOTATION_TITLE)?;
        let name = title.strip_prefix("pid1 ").filter(|it| is_name(it));
        let name = name.with_context(|| format!("`{title}` is none of our images"))?;
        let created = time(says(ANNOTATION_CREATED)?)?;
        let number = says(ANNOTATION_VERSION)?;
        let version =
            number.parse().with_context(|| format!("cannot read its version `{number}`"))?;
        let its = |name: &str| annotations.get(name);
        let base = its(ANNOTATION_BASE_IMAGE_NAME).zip(its(ANNOTATION_BASE_IMAGE_DIGEST));
        let base = base.map(|(name, digest)| anyhow::Ok((name.parse()?, digest.clone())));
        Ok(Says { name: name.to_string(), version, revision, created, base: base.transpose()? })
    }

    /// Fails if the tag promises another version, or another image.
    fn ensure_named(&self, tag: &str) -> Result<()> {
        let Says { name, version, .. } = self;
        let tags = version::tags(version, name, true);
        let is_dated = tag.starts_with(&format!("{}-", tags[0]));
        let is_right = tags.iter().any(|it| it == tag) || is_dated;
        let is_number = tag.starts_with(|it: char| it.is_ascii_digit());
        ensure!(is_right || !is_number, "under the tag `{tag}` there is {version} of `{name}`");
        Ok(())
    }
}

fn commit(revision: &str) -> Result<String> {
    if let Some(commit) = revision.strip_suffix("-dirty") {
        bail!("it was built from a changed tree, which nobody else has, on top of {commit}");
    }
    let is_hex = revision.chars().all(|it| matches!(it, '0'..='9' | 'a'..='f'));
    ensure!(is_hex && matches!(revision.len(), 40 | 64), "`{revision}` is no commit");
    Ok(revision.to_string())
}

fn time(created: &str) -> Result<Timestamp> {
    created.parse().with_context(|| format!("cannot read its time `{created}`"))
}

/// Whether this is what a definition can be called.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|it: char| it.is_ascii_lowercase())
        && name.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-')
}

/// The platforms of `index`, of which only those `wanted` matter, if any is.
fn platforms(index: &ImageIndex, wanted: &[&'static Platform]) -> Result<Vec<&'static Platform>> {
    let names: Vec<_> = index.manifests().iter().map(layout::platform).collect();
    if let Some(lacking) = wanted.iter().find(|it| !names.contains(&it.to_string())) {
        bail!("it is not for {lacking}, it is for {}", names.join(", "));
    }
    let known = names.iter().map(|name| name.parse::<&Platform>().map_err(anyhow::Error::msg));
    let known = known.collect::<Result<Vec<_>>>()?;
    Ok(known.into_iter().filter(|it| wanted.is_empty() || wanted.contains(it)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn index(title: &str, revision: &str) -> ImageIndex {
        let annotations = json!({
            ANNOTATION_TITLE: title,
            ANNOTATION_REVISION: revision,
            ANNOTATION_VERSION: "1.2.3",
            ANNOTATION_CREATED: "2026-01-02T03:04:05Z",
        });
        let index = json!({ "schemaVersion": 2, "manifests": [], "annotations": annotations });
        serde_json::from_value(index).unwrap()
    }

    #[test]
    fn an_image_says_what_it_was_built_from() {
        let says = Says::new(&index("pid1 docker-testing", COMMIT)).unwrap();
        let created = "2026-01-02T03:04:05Z".parse().unwrap();
        let (name, revision) = ("docker-testing".to_string(), COMMIT.to_string());
        let version = Version::new(1, 2, 3);
        assert_eq!(says, Says { name, version, revision, created, base: None });
    }

    #[test]
    fn an_image_is_of_the_version_that_its_tag_promises() {
        let says = Says::new(&index("pid1 debian", COMMIT)).unwrap();
        for right in ["1.2.3-debian", "1.2-debian", "1", "debian", "latest", "mine", "abc"] {
            says.ensure_named(right).unwrap();
        }
        says.ensure_named("1.2.3-debian-20260102").unwrap();
        for wrong in ["1.2.4-debian", "1.3-debian", "2", "1.2.3-ubuntu"] {
            let expected = format!("under the tag `{wrong}` there is 1.2.3 of `debian`");
            assert_eq!(says.ensure_named(wrong).unwrap_err().to_string(), expected);
        }
    }

    #[track_caller]
    fn refuses(index: &ImageIndex, expected: &str) {
        assert_eq!(format!("{:#}", Says::new(index).unwrap_err()), expected);
    }

    #[test]
    fn what_cannot_be_rebuilt_is_refused_with_the_reason() {
        let silent = serde_json::from_value(json!({ "schemaVersion": 2, "manifests": [] }));
        refuses(
            &silent.unwrap(),
            "it does not say what it was built from: its index has no \
             `org.opencontainers.image.revision`",
        );
        let expected =
            format!("it was built from a changed tree, which nobody else has, on top of {COMMIT}");
        refuses(&index("pid1 static", &format!("{COMMIT}-dirty")), &expected);
        refuses(&index("pid1 static", "--upload-pack=x"), "`--upload-pack=x` is no commit");
        refuses(&index("pid1 static", "main"), "`main` is no commit");
        refuses(&index("pid1 --all", COMMIT), "`pid1 --all` is none of our images");
        refuses(&index("debian", COMMIT), "`debian` is none of our images");
    }
}
