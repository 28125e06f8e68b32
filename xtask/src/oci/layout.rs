//! Reads an OCI layout: the only thing a builder makes, and the only thing smoke, push and release
//! read (<https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use sha2::{Digest as _, Sha256};

use crate::platform::Platform;

/// What every layout has as `oci-layout`.
pub const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// One image in a layout of its own: `index.json` names one image index, and that one manifest per
/// platform.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout at `root`, which must have an `index.json`.
    pub fn open(root: &Path) -> Result<Layout> {
        let index = root.join("index.json");
        ensure!(
            index.is_file(),
            "cannot open the OCI layout `{}`: it has no index.json, run `cargo xtask image` first",
            root.display()
        );
        Ok(Layout { root: root.to_path_buf() })
    }

    /// All that it names, whoever made it.
    pub fn top(&self) -> Result<ImageIndex> {
        let path = self.root.join("index.json");
        ImageIndex::from_file(&path).with_context(|| format!("cannot read `{}`", path.display()))
    }

    /// The descriptor of the image index: its digest is the image's.
    pub fn index_descriptor(&self) -> Result<Descriptor> {
        match self.top()?.manifests().as_slice() {
            [one] if *one.media_type() == MediaType::ImageIndex => Ok(one.clone()),
            _ => bail!(
                "cannot use `{}`: it should name one image index",
                self.root.join("index.json").display()
            ),
        }
    }

    /// The image index: one manifest per platform.
    pub fn index(&self) -> Result<ImageIndex> {
        let bytes = self.read_blob(&self.index_descriptor()?)?;
        ImageIndex::from_reader(bytes.as_slice()).context("cannot read the image index")
    }

    /// The manifest for `platform`, with the descriptor the index has of it.
    pub fn manifest(&self, platform: &Platform) -> Result<(Descriptor, ImageManifest)> {
        let index = self.index()?;
        let found = index.manifests().iter().find(|it| is_for(it, platform));
        let descriptor = found.with_context(|| {
            format!("the image in `{}` is not built for {platform}", self.root.display())
        })?;
        let bytes = self.read_blob(descriptor)?;
        let manifest = ImageManifest::from_reader(bytes.as_slice())
            .with_context(|| format!("cannot read the manifest for {platform}"))?;
        Ok((descriptor.clone(), manifest))
    }

    /// The configuration that `manifest` names.
    pub fn config(&self, manifest: &ImageManifest) -> Result<ImageConfiguration> {
        let bytes = self.read_blob(manifest.config())?;
        ImageConfiguration::from_reader(bytes.as_slice()).context("cannot read the configuration")
    }

    /// The file of a blob.
    pub fn blob_path(&self, descriptor: &Descriptor) -> PathBuf {
        let digest = descriptor.digest();
        self.root.join("blobs").join(digest.algorithm().to_string()).join(digest.digest())
    }

    /// The bytes of a blob, checked against the size and digest they are known by.
    pub fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let path = self.blob_path(descriptor);
        let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let digest = sha256(&bytes);
        ensure!(
            bytes.len() as u64 == descriptor.size() && digest == descriptor.digest().to_string(),
            "cannot use `{}`: its bytes are {digest}, not what the layout says; build it again",
            path.display()
        );
        Ok(bytes)
    }
}

/// `sha256:…` of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// `linux/arm/v7`, as an index has it.
pub fn platform(descriptor: &Descriptor) -> String {
    let Some(platform) = descriptor.platform() else { return "no platform".to_string() };
    let variant = platform.variant().as_ref().map_or_else(String::new, |it| format!("/{it}"));
    format!("{}/{}{variant}", platform.os(), platform.architecture())
}

fn is_for(descriptor: &Descriptor, platform: &Platform) -> bool {
    descriptor.platform().as_ref().is_some_and(|it| {
        it.architecture().to_string() == platform.architecture
            && it.os().to_string() == "linux"
            && it.variant().as_deref() == platform.variant
    })
}
