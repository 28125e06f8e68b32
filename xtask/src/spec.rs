//! What an image is to be, with what it takes over from its bases: the one source of the built-in
//! builder and of the Dockerfiles.

use std::collections::BTreeMap;

use oci_spec::image::{
    ANNOTATION_BASE_IMAGE_DIGEST, ANNOTATION_BASE_IMAGE_NAME, ANNOTATION_CREATED,
    ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_REVISION, ANNOTATION_SOURCE,
    ANNOTATION_TITLE, ANNOTATION_VERSION,
};

use crate::contents;
use crate::definition::{Content, Definition};
use crate::lock::Lock;
use crate::plan;
use crate::platform::Platform;
use crate::registry::Reference;
use crate::revision::Revision;

/// The entrypoint of every image, in exec form.
pub const ENTRYPOINT: [&str; 1] = ["/sbin/pid1"];

/// What Docker gives an image that sets no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The labels whose values change with every commit, and the `ARG` of a Dockerfile for each.
pub const BUILD_LABELS: [(&str, &str); 3] = [
    (ANNOTATION_VERSION, "VERSION"),
    (ANNOTATION_REVISION, "REVISION"),
    (ANNOTATION_CREATED, "CREATED"),
];

/// Labels of the configuration, and annotations of manifest and index.
pub type Labels = BTreeMap<&'static str, String>;

/// An image, whoever builds it.
#[derive(Debug)]
pub struct ImageSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// The default arguments of the entrypoint.
    pub cmd: &'a [String],
    /// The image in a registry that it stands on, if it does.
    pub base: Option<Base<'a>>,
    /// The environment, `PATH` first; on a base, what is added to that.
    pub env: Vec<(&'a str, &'a str)>,
    /// Whom it runs as, if not root or whom its base does.
    pub user: Option<&'a str>,
    /// Where it runs, if not where its base does.
    pub workdir: Option<&'a str>,
    /// What the labels say in every build of it.
    pub labels: Labels,
    chain: Vec<&'a Definition>,
}

/// An image in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base<'a> {
    /// What it is called.
    pub reference: &'a Reference,
    /// What it is, once it is locked.
    pub digest: Option<&'a str>,
}

impl<'a> ImageSpec<'a> {
    /// What the last of `chain` asks for, on top of those before it: see
    /// [`crate::plan::Plan::chain`]. What that stands on is as `lock` has it.
    pub fn new(chain: Vec<&'a Definition>, lock: &'a Lock) -> ImageSpec<'a> {
        let last = *chain.last().expect("a chain ends with the definition it was asked for");
        let upwards = || chain.iter().rev();
        let base = plan::base(&chain).map(|reference| Base {
            reference,
            digest: lock.get(reference).map(|entry| entry.index.as_str()),
        });
        let workdir = upwards().find_map(|it| it.workdir.as_deref());
        ImageSpec {
            base,
            name: &last.name,
            cmd: upwards().find(|it| !it.cmd.is_empty()).map_or(&[], |it| &it.cmd),
            env: env(&chain, base),
            user: upwards().find_map(|it| it.user.as_deref()),
            // Said even where nobody did: docker writes it down unasked, podman does not.
            workdir: if base.is_some() { workdir } else { workdir.or(Some("/")) },
            labels: labels(last, &chain, base),
            chain,
        }
    }

    /// The parts of the image, the lowest layer first.
    pub fn parts(&self, platform: &'static Platform) -> Vec<Part<'a>> {
        let filled = self.chain.iter().filter(|it| !it.contents.is_empty());
        let above = filled.map(|definition| Part::Contents {
            name: &definition.name,
            contents: &definition.contents,
            platform: definition.contents.iter().any(|it| it.has_programs()).then_some(platform),
        });
        let base = self.base.map(|base| base.reference);
        std::iter::once(Part::Init { platform, base }).chain(above).collect()
    }

    /// All labels of a build of `version` from `revision`.
    pub fn build_labels(&self, version: &semver::Version, revision: &Revision) -> Labels {
        let mut labels = self.labels.clone();
        labels.insert(ANNOTATION_VERSION, version.to_string());
        labels.insert(ANNOTATION_CREATED, revision.time.to_string());
        if let Some(commit) = &revision.commit {
            labels.insert(ANNOTATION_REVISION, commit.clone());
        }
        labels
    }
}

fn env<'a>(chain: &[&'a Definition], base: Option<Base>) -> Vec<(&'a str, &'a str)> {
    let mut variables: BTreeMap<&str, &str> = BTreeMap::new();
    for definition in chain {
        variables.extend(definition.env.iter().map(|(name, value)| (&**name, &**value)));
    }
    let path = variables.remove("PATH").or(if base.is_some() { None } else { Some(PATH) });
    path.map(|path| ("PATH", path)).into_iter().chain(variables).collect()
}

fn labels(last: &Definition, chain: &[&Definition], base: Option<Base>) -> Labels {
    let mut labels = Labels::from([
        (ANNOTATION_TITLE, format!("pid1 {}", last.name)),
        (ANNOTATION_DESCRIPTION, last.summary.clone()),
        (ANNOTATION_SOURCE, env!("CARGO_PKG_REPOSITORY").to_string()),
    ]);
    if let Some(Base { reference, digest }) = base {
        // Under which licences all of a distribution is, only that can say.
        labels.insert(ANNOTATION_BASE_IMAGE_NAME, reference.to_string());
        labels.extend(digest.map(|it| (ANNOTATION_BASE_IMAGE_DIGEST, it.to_string())));
    } else {
        let mut licenses = vec![env!("CARGO_PKG_LICENSE")];
        licenses.extend(chain.iter().flat_map(|it| &it.contents).filter_map(|it| it.license()));
        labels.insert(ANNOTATION_LICENSES, licenses.join(" AND "));
    }
    labels
}

/// What becomes one layer. Equal parts are the same layer, in whichever image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// `/sbin/pid1`.
    Init {
        /// The platform.
        platform: &'static Platform,
        /// The image in a registry that it is put on, if it is.
        base: Option<&'a Reference>,
    },
    /// What one definition asks for.
    Contents {
        /// The definition's name.
        name: &'a str,
        /// What it asks for.
        contents: &'a [Content],
        /// The platform, where there are programs among it.
        platform: Option<&'static Platform>,
    },
}

impl Part<'_> {
    /// What it holds, for people.
    pub fn summary(&self) -> String {
        match self {
            Part::Init { .. } => format!("/{}", contents::INIT),
            Part::Contents { contents, .. } => {
                contents.iter().map(Content::to_string).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// Its file in the build context of a Dockerfile, where `platform` stands for the platform.
    pub fn context_path(&self, platform: &str) -> String {
        match self {
            Part::Init { .. } => format!("{platform}/pid1"),
            Part::Contents { name, platform: Some(_), .. } => format!("{platform}/{name}.tar.gz"),
            Part::Contents { name, platform: None, .. } => format!("{name}.tar.gz"),
        }
    }
}
