//! Images out of a registry into layouts: for `cargo xtask smoke --from` into the place of what was
//! built, so that the smoke tests run what has come all the way through the registry.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde_json::json;

use crate::flags::{self, Transport};
use crate::folder::{self, Files, Source};
use crate::oci::layout::{self, Layout, MARKER};
use crate::plan::{ImagePlan, Plan};
use crate::platform::Platform;
use crate::registry::work::each;
use crate::registry::{Blob, Document, Registry, Repository};
use crate::{Context, base, oci, paths};

/// Pulls the chosen images, if there is a place to pull them from.
pub fn command(context: &Context, choice: &flags::Choice, from: &flags::From) -> Result<()> {
    let Some(repository) = &from.from else { return Ok(()) };
    let plan = Plan::new(&choice.images, &choice.platforms.platforms)?;
    pull(context, &plan, &Repository::parse(repository)?, &from.transport)
}

/// Pulls the plan's images: by the digest of the layout that was built, or, where there is none,
/// by the tag of this version.
pub fn pull(
    context: &Context,
    plan: &Plan,
    repository: &Repository,
    transport: &Transport,
) -> Result<()> {
    let registry = Registry::to_pull(&context.ui, repository.clone(), transport)?;
    let work = async {
        let registry = Arc::new(registry.connect(transport).await?);
        for image in &plan.images {
            let pulled = one(context, &registry, image).await;
            pulled.with_context(|| format!("cannot pull the image `{}`", image.name))?;
        }
        Ok(())
    };
    base::wait_for(context, work).with_context(|| format!("cannot pull from `{repository}`"))
}

async fn one(context: &Context, registry: &Arc<Registry>, image: &ImagePlan) -> Result<()> {
    let place = paths::layout(&image.name);
    let built = Layout::open(&place).and_then(|it| it.index_descriptor()).ok();
    let reference =
        built.as_ref().map_or_else(|| image.tags[0].clone(), |it| it.digest().to_string());
    fs::create_dir_all(paths::dist()).context("cannot create a folder")?;
    // On the file system of its place, where the files can be linked; it removes itself.
    let aside = tempfile::tempdir_in(paths::dist()).context("cannot create a folder")?;
    let fetched = Fetched::get(context, registry, &reference, &[], aside.path()).await?;
    let top = match built {
        Some(_) => fs::read(place.join("index.json")).context("cannot read `index.json`")?,
        None => top(&fetched.index)?,
    };
    folder::put(&context.interrupt, &place, &fetched.files(&top))?;
    let (digest, count) = (&fetched.index.digest, fetched.manifests.len());
    context.ui.say(format!("pulled {}: {digest}, {count} platforms", image.name));
    Ok(())
}

/// Makes `place` a layout of the image that the repository has at the tag or digest: of `platforms`
/// only, if there are any, but with the whole index.
pub fn to_layout(
    context: &Context,
    (repository, reference, transport): (&Repository, &str, &Transport),
    platforms: &[&Platform],
    place: &Path,
) -> Result<()> {
    let registry = Registry::to_pull(&context.ui, repository.clone(), transport)?;
    let aside = place.with_extension("blobs");
    let work = async {
        let registry = Arc::new(registry.connect(transport).await?);
        Fetched::get(context, &registry, reference, platforms, &aside).await
    };
    let fetched = base::wait_for(context, work)
        .with_context(|| format!("cannot pull `{reference}` from `{repository}`"))?;
    folder::put(&context.interrupt, place, &fetched.files(&top(&fetched.index)?)).map(drop)
}

/// An image, or what was wanted of it.
struct Fetched {
    index: Document,
    manifests: Vec<Document>,
    blobs: Vec<Blob>,
}

impl Fetched {
    /// Downloads the image, for `platforms` only if there are any; blobs go into `folder`.
    async fn get(
        context: &Context,
        registry: &Arc<Registry>,
        reference: &str,
        platforms: &[&Platform],
        folder: &Path,
    ) -> Result<Fetched> {
        let index = registry.document(reference, "the image index").await?;
        let manifests = manifests(registry, &index, platforms).await?;
        let blobs = blobs(&manifests, folder)?;
        let bar = context.ui.byte_bar("pulling", blobs.iter().map(|it| it.size).sum());
        each(blobs.clone(), |blob| {
            let (registry, bar) = (registry.clone(), bar.clone());
            async move { registry.download(&blob, &bar).await }
        })
        .await?;
        bar.finish_and_clear();
        Ok(Fetched { index, manifests, blobs })
    }

    /// The files of its layout, of which `top` is `index.json`.
    fn files<'a>(&'a self, top: &'a [u8]) -> Files<'a> {
        let place = |digest: &str| format!("blobs/{}", digest.replacen(':', "/", 1));
        let documents = self.manifests.iter().chain([&self.index]);
        let documents = documents.map(|it| (place(&it.digest), Source::Bytes(&it.bytes)));
        let blobs = self.blobs.iter();
        let blobs = blobs.map(|it| (place(&it.digest), Source::File(&it.path, it.size)));
        let named = [("oci-layout", MARKER), ("index.json", top)];
        let named = named.map(|(name, bytes)| (name.to_string(), Source::Bytes(bytes)));
        documents.chain(blobs).chain(named).collect()
    }
}

async fn manifests(
    registry: &Arc<Registry>,
    index: &Document,
    platforms: &[&Platform],
) -> Result<Vec<Document>> {
    let index = ImageIndex::from_reader(index.bytes.as_slice());
    let mut descriptors = index.context("cannot read the image index")?.manifests().clone();
    let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
    descriptors.retain(|it| names.is_empty() || names.contains(&layout::platform(it)));
    each(descriptors, |descriptor| {
        let registry = registry.clone();
        async move { registry.document(descriptor.digest().as_ref(), "a manifest").await }
    })
    .await
}

/// The configurations and layers, each once, with the place in `folder` that they go to.
fn blobs(manifests: &[Document], folder: &Path) -> Result<Vec<Blob>> {
    let mut blobs = BTreeMap::new();
    for document in manifests {
        let manifest = ImageManifest::from_reader(document.bytes.as_slice());
        let manifest = manifest.context("cannot read a manifest")?;
        let layers = manifest.layers().iter().map(|it| (it, "a layer"));
        for (descriptor, what) in layers.chain([(manifest.config(), "a configuration")]) {
            let (digest, size) = (descriptor.digest().to_string(), descriptor.size());
            let path = folder.join(descriptor.digest().digest());
            blobs.insert(digest.clone(), Blob { digest, size, path, what: what.to_string() });
        }
    }
    Ok(blobs.into_values().collect())
}

/// An `index.json` that names `index`.
fn top(index: &Document) -> Result<Vec<u8>> {
    let descriptor: Descriptor = oci::descriptor(MediaType::ImageIndex, &index.bytes)?;
    let media_type = MediaType::ImageIndex.to_string();
    oci::json(&json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [descriptor] }))
}
