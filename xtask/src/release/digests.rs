//! `digests.json`: what every name of this build is by digest.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Release;
use crate::oci::layout::{self, Layout};
use crate::paths;

/// What the file is called.
pub const DIGESTS: &str = "digests.json";

/// Everything of a build that has a digest.
#[derive(Debug, Serialize, Deserialize)]
pub struct Digests {
    /// The version in `Cargo.toml`.
    pub version: String,
    /// The commit; nothing without git.
    pub revision: Option<String>,
    /// The time that everything is dated with.
    pub created: String,
    /// Where people find the images.
    pub repository: String,
    /// The images, in the plan's order.
    pub images: Vec<ImageDigests>,
}

/// An image of a build.
#[derive(Debug, Serialize, Deserialize)]
pub struct ImageDigests {
    /// Its name.
    pub name: String,
    /// `repository@digest` of its index.
    pub reference: String,
    /// The digest of its index.
    pub digest: String,
    /// The tags it gets.
    pub tags: Vec<String>,
    /// The digest of each platform's manifest.
    pub platforms: BTreeMap<String, String>,
}

impl Digests {
    /// Reads the layouts of the plan's images.
    pub fn read(release: &Release) -> Result<Digests> {
        let mut images = Vec::new();
        for image in &release.plan.images {
            let what = || format!("cannot list the digests of the image `{}`", image.name);
            let layout = Layout::open(&paths::layout(&image.name)).with_context(what)?;
            let digest = layout.index_descriptor().with_context(what)?.digest().to_string();
            let index = layout.index().with_context(what)?;
            let platform = |it| (layout::platform(it), it.digest().to_string());
            images.push(ImageDigests {
                name: image.name.clone(),
                reference: format!("{}@{digest}", release.repository),
                digest,
                tags: image.tags.clone(),
                platforms: index.manifests().iter().map(platform).collect(),
            });
        }
        Ok(Digests {
            version: release.plan.version.to_string(),
            revision: release.revision.commit.clone(),
            created: release.revision.time.to_string(),
            repository: release.repository.to_string(),
            images,
        })
    }

    /// As the file has it.
    pub fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).context("cannot write `digests.json`")?;
        Ok(text + "\n")
    }
}
