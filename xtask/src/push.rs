//! `cargo xtask push`: the layouts that were built, to one repository, tags last.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use indicatif::HumanBytes;
use oci_spec::image::{Descriptor, ImageManifest, MediaType};
use tokio::runtime;

use crate::definition::Definition;
use crate::flags::{self, PushOptions};
use crate::image::Built;
use crate::oci::layout::{Layout, platform};
use crate::plan::{ImagePlan, Plan};
use crate::registry::work::{each, unless};
use crate::registry::{Arrival, Blob, Document, Registry, Repository};
use crate::ui::Ui;
use crate::{Context, paths};

/// What becomes of the tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tags {
    /// They are moved when everything else is there.
    Move,
    /// They stay where they are: what is there can be had by digest.
    Keep,
}

/// The command: prints one reference a line, or what it would upload.
pub fn run(context: &Context, flags: &flags::Push) -> Result<()> {
    let plan = Plan::new(&flags.images, &[])?;
    if flags.dry_run {
        return preview(context, &plan, &flags.repository, &flags.options);
    }
    let tags = if flags.untagged { Tags::Keep } else { Tags::Move };
    print(&push(context, &plan, &flags.repository, &flags.options, tags)?);
    Ok(())
}

/// Prints `repository@digest`, a line for every image.
pub fn print(references: &[String]) {
    for reference in references {
        println!("{reference}");
    }
}

/// Pushes the layouts of the plan's images to `repository`: all their contents, then the tags.
/// Gives a `repository@digest` for each.
pub fn push(
    context: &Context,
    plan: &Plan,
    repository: &str,
    options: &PushOptions,
    tags: Tags,
) -> Result<Vec<String>> {
    let repository = Repository::parse(repository)?;
    send(context, &Contents::read(plan)?, &repository, options, tags)
}

/// The same, tags moved, of the very images that were `built` and have been tested since.
pub fn push_built(
    context: &Context,
    plan: &Plan,
    built: &[Built],
    repository: &str,
    options: &PushOptions,
) -> Result<Vec<String>> {
    let repository = Repository::parse(repository)?;
    let contents = Contents::read(plan)?;
    contents.ensure_are(built)?;
    send(context, &contents, &repository, options, Tags::Move)
}

fn send(
    context: &Context,
    contents: &Contents,
    repository: &Repository,
    options: &PushOptions,
    tags: Tags,
) -> Result<Vec<String>> {
    let registry = registry(context, repository, options)?;
    let ui = &context.ui;
    ui.say(format!("pushing {} to {repository}", contents.names()));
    for (image, lacks) in &contents.lacking {
        let moves = match tags {
            Tags::Move => "; its tags move in spite of that, `push --untagged` leaves them",
            Tags::Keep => "",
        };
        ui.warn(format!("{image}: pushed without {lacks}, for which it was not built{moves}"));
    }
    let work = async {
        let registry = Arc::new(registry.connect(&options.registry.transport).await?);
        upload(ui, &registry, contents).await?;
        Ok(registry)
    };
    let runtime = runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(unless(&context.interrupt, work));
    let outcome = outcome
        .with_context(|| format!("cannot push to `{repository}`, no tag was moved"))
        .and_then(|registry| {
            if tags == Tags::Keep {
                return Ok(());
            }
            // From here on everything is there: whatever fails, each tag is right, old or new.
            let work = move_tags(ui, &registry, &contents.images);
            let moving = runtime.block_on(unless(&context.interrupt, work));
            moving.with_context(|| format!("cannot move all tags of `{repository}`"))
        });
    // Neither a hash nor a credential helper is waited for.
    runtime.shutdown_background();
    outcome?;
    let references = contents.images.iter();
    Ok(references.map(|image| format!("{repository}@{}", image.index.digest)).collect())
}

/// The registry of `repository`, which nothing is sent to yet.
fn registry(context: &Context, repository: &Repository, options: &PushOptions) -> Result<Registry> {
    let registry = Registry::new(&context.ui, repository.clone(), &options.registry)?;
    match &options.mount_from {
        Some(from) => registry.mounting_from(from),
        None => Ok(registry),
    }
}

/// Prints what [`push`] would upload, and changes nothing.
pub fn preview(
    context: &Context,
    plan: &Plan,
    repository: &str,
    options: &PushOptions,
) -> Result<()> {
    let repository = Repository::parse(repository)?;
    let contents = Contents::read(plan)?;
    let registry = registry(context, &repository, options)?;
    let work = async {
        let registry = Arc::new(registry.connect(&options.registry.transport).await?);
        let mut lines = Vec::new();
        for blob in absent_blobs(&registry, &contents.blobs).await? {
            lines.push(match registry.mountable_from(&blob).await? {
                Some(from) => format!("mount {from}@{}", blob.digest),
                None => format!("blob {repository}@{}", blob.digest),
            });
        }
        let indexes = contents.images.iter().map(|image| &image.index);
        for document in absent(&registry, contents.manifests.iter().chain(indexes)).await? {
            lines.push(format!("manifest {repository}@{}", document.digest));
        }
        for image in &contents.images {
            let tags = stale_tags(&registry, image).await?;
            lines.extend(tags.iter().map(|tag| format!("tag {repository}:{tag}")));
        }
        Ok(lines)
    };
    let runtime = runtime::Runtime::new().context("cannot start the runtime")?;
    let lines = runtime.block_on(unless(&context.interrupt, work));
    runtime.shutdown_background();
    let lines = lines.with_context(|| format!("cannot compare with `{repository}`"))?;
    if lines.is_empty() {
        context.ui.say(format!("{} already there", contents.names()));
    }
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

/// Everything that is to be in the repository, each thing once.
#[derive(Default)]
struct Contents {
    blobs: Vec<Blob>,
    manifests: Vec<Document>,
    images: Vec<Image>,
    /// Images whose layout has not all the platforms of the definition, and those it has not.
    lacking: Vec<(String, String)>,
}

struct Image {
    name: String,
    index: Document,
    tags: Vec<String>,
}

impl Contents {
    fn read(plan: &Plan) -> Result<Contents> {
        let mut contents = Contents::default();
        for image in &plan.images {
            contents
                .add(image, &plan.chain(&image.name))
                .with_context(|| format!("cannot push the image `{}`", image.name))?;
        }
        let mut seen = BTreeSet::new();
        contents.blobs.retain(|blob| seen.insert(blob.digest.clone()));
        contents.manifests.retain(|manifest| seen.insert(manifest.digest.clone()));
        // The longest upload begins first.
        contents.blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        Ok(contents)
    }

    fn add(&mut self, image: &ImagePlan, chain: &[&Definition]) -> Result<()> {
        let layout = Layout::open(&paths::layout(&image.name))?;
        // Not the plan's: whoever builds for a few platforms may forget the others.
        let all = chain.last().map_or(&[][..], |it| &it.platforms);
        let mut missing: Vec<_> = all.iter().map(ToString::to_string).collect();
        for descriptor in layout.index()?.manifests() {
            let platform = platform(descriptor);
            missing.retain(|it| *it != platform);
            let whose = format!("`{}` for {platform}", image.name);
            ensure!(
                *descriptor.media_type() == MediaType::ImageManifest,
                "its index names a {} where a manifest should be",
                descriptor.media_type()
            );
            let document = document(&layout, descriptor, format!("the manifest of {whose}"))?;
            let manifest = ImageManifest::from_reader(document.bytes.as_slice())
                .with_context(|| format!("cannot read the manifest of {whose}"))?;
            self.manifests.push(document);
            self.blobs.push(blob(&layout, manifest.config(), format!("the config of {whose}")));
            for layer in manifest.layers() {
                self.blobs.push(blob(&layout, layer, format!("a layer of {whose}")));
            }
        }
        if !missing.is_empty() {
            self.lacking.push((image.name.clone(), missing.join(", ")));
        }
        let what = format!("the image index of `{}`", image.name);
        let index = document(&layout, &layout.index_descriptor()?, what)?;
        self.images.push(Image { name: image.name.clone(), index, tags: image.tags.clone() });
        Ok(())
    }

    /// Fails unless these are the images that were `built`: others may build here, too.
    fn ensure_are(&self, built: &[Built]) -> Result<()> {
        for Image { name, index, .. } in &self.images {
            let same = built.iter().any(|it| it.name == *name && it.digest == index.digest);
            ensure!(
                same,
                "cannot push the image `{name}`: it was built anew since it was tested, and is {} \
                 now; run it again",
                index.digest
            );
        }
        Ok(())
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.images.iter().map(|image| image.name.as_str()).collect();
        names.join(", ")
    }
}

fn document(layout: &Layout, descriptor: &Descriptor, what: String) -> Result<Document> {
    Ok(Document {
        digest: descriptor.digest().to_string(),
        media_type: descriptor.media_type().to_string(),
        bytes: layout.read_blob(descriptor)?,
        what,
    })
}

fn blob(layout: &Layout, descriptor: &Descriptor, what: String) -> Blob {
    Blob {
        digest: descriptor.digest().to_string(),
        size: descriptor.size(),
        path: layout.blob_path(descriptor),
        what,
    }
}

/// Blobs, then the manifests that name them, then the indexes that name those.
async fn upload(ui: &Ui, registry: &Arc<Registry>, contents: &Contents) -> Result<()> {
    let blobs = absent_blobs(registry, &contents.blobs).await?;
    let there = contents.blobs.len() - blobs.len();
    let bar = ui.byte_bar("uploading", blobs.iter().map(|blob| blob.size).sum());
    let arrived = each(blobs, |blob| {
        let (registry, bar) = (registry.clone(), bar.clone());
        async move { Ok((registry.upload(&blob, &bar).await?, blob.size)) }
    })
    .await?;
    bar.finish_and_clear();
    let (mounted, uploaded): (Vec<_>, Vec<_>) =
        arrived.into_iter().partition(|(arrival, _)| *arrival == Arrival::Mounted);
    let amount = HumanBytes(uploaded.iter().map(|(_, size)| size).sum());
    let mounted = match mounted.len() {
        0 => String::new(),
        count => format!("{count} mounted, "),
    };
    let uploaded = uploaded.len();
    ui.say(format!("blobs: {uploaded} uploaded ({amount}), {mounted}{there} already there"));
    put_absent(ui, registry, "manifests", &contents.manifests).await?;
    let indexes: Vec<_> = contents.images.iter().map(|image| image.index.clone()).collect();
    put_absent(ui, registry, "indexes", &indexes).await
}

async fn put_absent(
    ui: &Ui,
    registry: &Arc<Registry>,
    kind: &str,
    documents: &[Document],
) -> Result<()> {
    let missing = absent(registry, documents).await?;
    let pushed = missing.len();
    each(missing, |document| {
        let registry = registry.clone();
        async move { registry.put(&document, &document.digest).await }
    })
    .await?;
    ui.say(format!("{kind}: {pushed} pushed, {} already there", documents.len() - pushed));
    Ok(())
}

async fn absent_blobs(registry: &Arc<Registry>, blobs: &[Blob]) -> Result<Vec<Blob>> {
    let missing = each(blobs.to_vec(), |blob| {
        let registry = registry.clone();
        async move { registry.has(&blob).await.map(|has| (!has).then_some(blob)) }
    });
    Ok(missing.await?.into_iter().flatten().collect())
}

async fn absent(
    registry: &Arc<Registry>,
    documents: impl IntoIterator<Item = &Document>,
) -> Result<Vec<Document>> {
    let missing = each(documents.into_iter().cloned().collect(), |document| {
        let registry = registry.clone();
        async move {
            let found = registry.digest_of(&document.digest, &document.what).await?;
            Ok((found.as_ref() != Some(&document.digest)).then_some(document))
        }
    });
    Ok(missing.await?.into_iter().flatten().collect())
}

/// Moves the tags that do not point at their image yet, each image's own before its general ones.
async fn move_tags(ui: &Ui, registry: &Arc<Registry>, images: &[Image]) -> Result<()> {
    for image in images {
        let stale = stale_tags(registry, image).await?;
        for tag in &stale {
            registry.put(&image.index, tag).await?;
        }
        let Image { name, index, tags } = image;
        ui.say(match stale.as_slice() {
            [] => format!("{name}: {} already there", index.digest),
            _ => format!("{name}: {} tagged {}", index.digest, stale.join(", ")),
        });
        if !stale.is_empty() && stale.len() < tags.len() {
            ui.say(format!("{name}: {} more tags already there", tags.len() - stale.len()));
        }
    }
    Ok(())
}

/// The tags of `image` that are not there or point at something else, in the plan's order.
async fn stale_tags(registry: &Arc<Registry>, image: &Image) -> Result<Vec<String>> {
    let right = each(image.tags.clone(), |tag| {
        let (registry, digest) = (registry.clone(), image.index.digest.clone());
        async move {
            let found = registry.digest_of(&tag, &format!("the tag `{tag}`")).await?;
            Ok((found == Some(digest)).then_some(tag))
        }
    });
    let right: Vec<_> = right.await?.into_iter().flatten().collect();
    Ok(image.tags.iter().filter(|tag| !right.contains(tag)).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_anew_since_it_was_tested_is_not_pushed() {
        let index = Document {
            digest: "sha256:b".to_string(),
            media_type: MediaType::ImageIndex.to_string(),
            bytes: Vec::new(),
            what: String::new(),
        };
        let image = Image { name: "static".to_string(), index, tags: Vec::new() };
        let contents = Contents { images: vec![image], ..Contents::default() };
        let built = |digest: &str| {
            [Built { name: "static".to_string(), digest: digest.to_string(), size: 0 }]
        };
        contents.ensure_are(&built("sha256:b")).unwrap();
        assert_eq!(
            contents.ensure_are(&built("sha256:a")).unwrap_err().to_string(),
            "cannot push the image `static`: it was built anew since it was tested, and is \
             sha256:b now; run it again"
        );
    }
}
