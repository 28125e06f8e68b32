//! Referrers: files that are attached to an image by naming it as their subject
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-manifests-with-subject>).

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use oci_spec::image::{
    ANNOTATION_TITLE, Descriptor, ImageManifestBuilder, MediaType, SCHEMA_VERSION,
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::Registry;
use super::push::{Blob, Document};
use crate::oci;
use crate::oci::layout::sha256;

/// The configuration of what is no image.
const EMPTY: &[u8] = b"{}";

/// A file to attach.
#[derive(Debug, Clone)]
pub struct Artifact {
    path: PathBuf,
    name: String,
    /// The file, as a layer; its media type is the artifact's, too.
    layer: Descriptor,
}

impl Artifact {
    /// The file at `path`, which is of `media_type`, such as `application/spdx+json`.
    pub fn read(path: &Path, media_type: &str) -> Result<Artifact> {
        let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let name = path.file_name().context("a file that can be read has a name")?;
        let name = name.to_string_lossy().into_owned();
        let mut layer = oci::descriptor(MediaType::from(media_type), &bytes)?;
        layer.set_annotations(Some(HashMap::from([(ANNOTATION_TITLE.to_string(), name.clone())])));
        Ok(Artifact { path: path.to_path_buf(), name, layer })
    }
}

impl fmt::Display for Artifact {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.name, self.layer.media_type())
    }
}

/// What was attached.
#[derive(Debug)]
pub struct Attached {
    /// The digest of its manifest.
    pub digest: String,
    /// The tag that lists it, where the registry has no referrers API.
    pub tag: Option<String>,
}

impl Registry {
    /// What `reference`, a tag or a digest, points at, as a subject.
    pub async fn subject(&self, reference: &str) -> Result<Descriptor> {
        let document = self.document(reference, &format!("`{reference}`")).await?;
        oci::descriptor(MediaType::from(document.media_type.as_str()), &document.bytes)
    }

    /// Attaches `artifact` to `subject`, by the referrers API or a tag that lists what is attached.
    ///
    /// Of two that change such a tag at once, the later can undo the earlier: the specification
    /// knows no lock. Attaching the same file again repairs that.
    pub async fn attach(&self, subject: &Descriptor, artifact: &Artifact) -> Result<Attached> {
        let mut empty = NamedTempFile::new().context("cannot make a temporary file")?;
        empty.write_all(EMPTY).context("cannot write a temporary file")?;
        let config = oci::descriptor(MediaType::EmptyJSON, EMPTY)?;
        self.upload_absent(&config, empty.path(), "an empty config").await?;
        let what = format!("`{}`", artifact.name);
        self.upload_absent(&artifact.layer, &artifact.path, &what).await?;

        let document = manifest(subject, artifact, config)?;
        let digest = document.digest.clone();
        let step = format!("cannot push {} ({digest})", document.what);
        let headers = self.persist(&step, || self.try_put(&document, &digest)).await?;
        let listed = headers.get("oci-subject").and_then(|it| it.to_str().ok());
        if listed == Some(subject.digest().as_ref()) {
            return Ok(Attached { digest, tag: None });
        }
        let tag = subject.digest().to_string().replace(':', "-");
        self.list(&tag, &entry(&document, artifact)).await?;
        Ok(Attached { digest, tag: Some(tag) })
    }

    async fn upload_absent(&self, descriptor: &Descriptor, path: &Path, what: &str) -> Result<()> {
        let blob = Blob {
            digest: descriptor.digest().to_string(),
            size: descriptor.size(),
            path: path.to_path_buf(),
            what: what.to_string(),
        };
        if !self.has(&blob).await? {
            self.upload(&blob, &ProgressBar::hidden()).await?;
        }
        Ok(())
    }

    /// Adds `entry` to the index at `tag`, unless it is there.
    async fn list(&self, tag: &str, entry: &Value) -> Result<()> {
        let what = format!("the tag `{tag}`");
        let old = match self.digest_of(tag, &what).await? {
            Some(_) => Some(self.document(tag, &what).await?.bytes),
            None => None,
        };
        let listed = with_entry(old.as_deref(), entry);
        let listed = listed.with_context(|| format!("cannot add to the index at `{tag}`"))?;
        let Some(bytes) = listed else { return Ok(()) };
        let document = Document {
            digest: sha256(&bytes),
            media_type: MediaType::ImageIndex.to_string(),
            bytes,
            what: "the list of what is attached".to_string(),
        };
        self.put(&document, tag).await
    }
}

/// The same for the same file and subject: without a date, so that it is pushed only once.
fn manifest(subject: &Descriptor, artifact: &Artifact, config: Descriptor) -> Result<Document> {
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .artifact_type(artifact.layer.media_type().clone())
        .config(config)
        .layers(vec![artifact.layer.clone()])
        .subject(subject.clone())
        .build()
        .context("cannot make a manifest")?;
    let bytes = oci::json(&manifest)?;
    Ok(Document {
        digest: sha256(&bytes),
        media_type: MediaType::ImageManifest.to_string(),
        bytes,
        what: format!("the manifest of `{}`", artifact.name),
    })
}

fn entry(document: &Document, artifact: &Artifact) -> Value {
    json!({
        "mediaType": document.media_type,
        "digest": document.digest,
        "size": document.bytes.len(),
        "artifactType": artifact.layer.media_type().to_string(),
    })
}

/// The index `old` with `entry`; none if that is in it already. All else in it stays.
fn with_entry(old: Option<&[u8]>, entry: &Value) -> Result<Option<Vec<u8>>> {
    let mut index: Value = match old {
        Some(bytes) => serde_json::from_slice(bytes).context("it is no JSON")?,
        None => json!({
            "schemaVersion": SCHEMA_VERSION,
            "mediaType": MediaType::ImageIndex.to_string(),
            "manifests": [],
        }),
    };
    let entries = index.get_mut("manifests").and_then(Value::as_array_mut);
    let entries = entries.context("it is no image index")?;
    if entries.iter().any(|it| it["digest"] == entry["digest"]) {
        return Ok(None);
    }
    entries.push(entry.clone());
    oci::json(&index).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_added_once_and_what_else_is_there_stays() {
        let entry = json!({ "digest": "sha256:b" });
        let old = json!({ "manifests": [{ "digest": "sha256:a", "x": 1 }], "y": 2 });
        let new = with_entry(Some(old.to_string().as_bytes()), &entry).unwrap().unwrap();
        let expected = json!({
            "manifests": [{ "digest": "sha256:a", "x": 1 }, { "digest": "sha256:b" }], "y": 2
        });
        assert_eq!(serde_json::from_slice::<Value>(&new).unwrap(), expected);
        assert_eq!(with_entry(Some(&new), &entry).unwrap(), None);
    }

    #[test]
    fn what_is_no_index_is_left_alone() {
        for other in ["{}", "[]", "<html>", "{\"manifests\":1}"] {
            assert!(with_entry(Some(other.as_bytes()), &json!({})).is_err(), "{other}");
        }
    }
}
