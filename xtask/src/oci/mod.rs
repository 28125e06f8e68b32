//! Images as OCI has them: layers, configuration, manifests, index, and the layout they lie in.

pub mod layer;

pub mod image;

pub mod layout;

use anyhow::{Context, Result};
use oci_spec::image::{Descriptor, Digest, MediaType};

/// What others say of a blob of these `bytes`.
fn descriptor(media_type: MediaType, bytes: &[u8]) -> Result<Descriptor> {
    let digest: Digest = layout::sha256(bytes).parse().context("cannot name a blob")?;
    Ok(Descriptor::new(media_type, bytes.len() as u64, digest))
}
