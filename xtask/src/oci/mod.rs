//! Images as OCI has them: layers, configuration, manifests, index, and the layout they lie in.

pub mod layer;

pub mod lower;

pub mod image;
mod merge;

pub mod layout;

use anyhow::{Context, Result};
use oci_spec::image::{Descriptor, Digest, MediaType};
use serde::Serialize;

/// What others say of a blob of these `bytes`.
pub fn descriptor(media_type: MediaType, bytes: &[u8]) -> Result<Descriptor> {
    let digest: Digest = layout::sha256(bytes).parse().context("cannot name a blob")?;
    Ok(Descriptor::new(media_type, bytes.len() as u64, digest))
}

/// `document` as JSON. By way of a `Value`, which sorts keys: the maps of oci-spec come in another
/// order in every run.
pub fn json(document: &impl Serialize) -> Result<Vec<u8>> {
    let value = serde_json::to_value(document).context("cannot write JSON")?;
    serde_json::to_vec(&value).context("cannot write JSON")
}
