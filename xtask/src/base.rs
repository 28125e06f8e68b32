//! The images in registries that ours stand on: what they are now, and their bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use indicatif::HumanBytes;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::runtime;

use crate::flags::Transport;
use crate::lock::{Entry, Lock, Wanted, wanted};
use crate::oci::layer::{self, Tree};
use crate::oci::layout::sha256;
use crate::oci::lower::Lower;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::registry::work::{each, unless};
use crate::registry::{Blob, Document, Mirror, Reference, Registry, mirrored};
use crate::spec::Part;
use crate::{Context, files, paths};

/// What docker calls a layer, and OCI the same bytes.
const DOCKER_LAYERS: [(&str, MediaType); 2] = [
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", MediaType::ImageLayerGzip),
    ("application/vnd.docker.image.rootfs.diff.tar", MediaType::ImageLayer),
];

/// How long requests that are given up may take to tidy up after themselves.
const PARTING: Duration = Duration::from_secs(1);

/// The bases of a plan, by reference and platform.
#[derive(Debug, Default)]
pub struct Bases(BTreeMap<(String, String), Pulled>);

/// One base for one platform. Its bytes are here.
#[derive(Debug)]
pub struct Pulled {
    /// Its configuration, as it is.
    pub config: Value,
    /// Its layers, the lowest first.
    pub layers: Vec<PulledLayer>,
    lower: Lower,
}

/// A layer of a base.
#[derive(Debug)]
pub struct PulledLayer {
    /// What a manifest of ours says of it.
    pub descriptor: Descriptor,
    /// Where its bytes lie.
    pub path: PathBuf,
}

impl Bases {
    /// The base for a platform that it was pulled for.
    pub fn get(&self, reference: &Reference, platform: &Platform) -> &Pulled {
        let found = self.0.get(&(reference.to_string(), platform.to_string()));
        found.expect("the bases of all images and platforms were pulled")
    }

    /// The tree of `part` as it has to be where it is put.
    pub fn place(&self, part: Part, tree: Tree) -> Result<Tree> {
        let Part::Init { platform, base: Some(reference) } = part else { return Ok(tree) };
        tree.over(&self.get(reference, platform).lower)
            .with_context(|| format!("cannot put a layer on `{reference}` for {platform}"))
    }
}

/// Asks the registries what the bases are now.
pub fn resolve(
    context: &Context,
    wanted: &[Wanted],
    mirrors: &[Mirror],
    transport: &Transport,
) -> Result<Lock> {
    let mut lock = Lock::default();
    for base in wanted {
        let tag = &base.reference.tag;
        let entry = resolve_at(context, (base, tag), mirrors, transport);
        let entry = entry.with_context(|| format!("cannot lock the base `{}`", base.reference))?;
        lock.insert(base.reference, entry);
    }
    Ok(lock)
}

/// Asks the registry what one of them is, or was, at a tag or digest.
pub fn resolve_at(
    context: &Context,
    (base, at): (&Wanted, &str),
    mirrors: &[Mirror],
    transport: &Transport,
) -> Result<Entry> {
    wait_for(context, resolve_one(context, (base, at), mirrors, transport))
}

/// Does `work`, unless the user interrupts.
pub fn wait_for<T>(context: &Context, work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime::Runtime::new().context("cannot start the runtime")?;
    let done = runtime.block_on(unless(&context.interrupt, work));
    // What was dropped halfway removes its files; a credential helper is not waited for.
    runtime.shutdown_timeout(PARTING);
    done
}

async fn resolve_one(
    context: &Context,
    (base, at): (&Wanted<'_>, &str),
    mirrors: &[Mirror],
    transport: &Transport,
) -> Result<Entry> {
    let registry = connect(context, base.reference, mirrors, transport).await?;
    let document = registry.document(at, "the image index").await?;
    let index = index(&document)?;
    let mut platforms = BTreeMap::new();
    for platform in &base.platforms {
        let found = index.manifests().iter().find(|it| is_for(it, platform));
        let descriptor = found.with_context(|| lacking(&index, platform, base.images[0]))?;
        platforms.insert(platform.to_string(), descriptor.digest().to_string());
    }
    Ok(Entry { index: document.digest, platforms })
}

async fn connect(
    context: &Context,
    reference: &Reference,
    mirrors: &[Mirror],
    transport: &Transport,
) -> Result<Registry> {
    let repository = mirrored(&reference.repository, mirrors)?;
    let from = &reference.repository.registry;
    let is_mirror = repository != reference.repository;
    let connected = Registry::to_pull(&context.ui, repository, transport)?.connect(transport).await;
    match connected {
        Err(err) if !is_mirror => Err(anyhow!("{err:#}; `--mirror {from}=…` asks elsewhere")),
        connected => connected,
    }
}

fn index(document: &Document) -> Result<ImageIndex> {
    let value: Value = serde_json::from_slice(&document.bytes).context("its answer is no JSON")?;
    ensure!(
        value.get("manifests").is_some(),
        "it is an image for one platform; a base needs an image index, as `docker buildx build \
         --push` or `podman manifest push` make it"
    );
    serde_json::from_value(value).context("cannot read its image index")
}

fn is_for(descriptor: &Descriptor, platform: &Platform) -> bool {
    descriptor.platform().as_ref().is_some_and(|it| {
        let variant = it.variant().as_deref();
        // Some give 64-bit ARM the variant that it has in any case.
        let is_implied = platform.architecture == "arm64" && variant == Some("v8");
        it.os().to_string() == "linux"
            && it.architecture().to_string() == platform.architecture
            && (variant == platform.variant || is_implied)
    })
}

fn lacking(index: &ImageIndex, platform: &Platform, image: &str) -> String {
    let known: Vec<_> = crate::platform::PLATFORMS
        .iter()
        .filter(|platform| index.manifests().iter().any(|it| is_for(it, platform)))
        .map(ToString::to_string)
        .collect();
    format!(
        "it has no {platform}, it has {}; leave {platform} out of `images/{image}/image.toml`",
        if known.is_empty() { "none of ours".to_string() } else { known.join(", ") }
    )
}

/// Gets what the plan's images stand on, as `lock` has it: from registries what is not here yet.
pub fn pull(
    context: &Context,
    plan: &Plan,
    lock: &Lock,
    mirrors: &[Mirror],
    transport: &Transport,
) -> Result<Bases> {
    let mut bases = Bases::default();
    for base in &wanted(plan) {
        let step = || format!("cannot pull the base `{}` of `{}`", base.reference, base.images[0]);
        let entry = lock.get(base.reference).context("it is not locked").with_context(step)?;
        wait_for(context, fetch(context, base, entry, mirrors, transport)).with_context(step)?;
        for (platform, pulled) in read(base, entry).with_context(step)? {
            bases.0.insert((base.reference.to_string(), platform.to_string()), pulled);
        }
    }
    Ok(bases)
}

/// Downloads what is not here yet: manifests, then what they name.
async fn fetch(
    context: &Context,
    base: &Wanted<'_>,
    entry: &Entry,
    mirrors: &[Mirror],
    transport: &Transport,
) -> Result<()> {
    let digests = base.platforms.iter().map(|it| (*it, entry.platforms[&it.to_string()].clone()));
    let missing: Vec<_> = digests.filter(|(_, digest)| here(digest).is_none()).collect();
    let mut registry = None;
    if !missing.is_empty() {
        let connected = Arc::new(connect(context, base.reference, mirrors, transport).await?);
        registry = Some(connected.clone());
        each(missing, |(platform, digest)| {
            let registry = connected.clone();
            async move {
                let what = format!("the manifest for {platform}");
                let document = registry.document(&digest, &what).await?;
                files::write(&paths::base_blob(&digest), &document.bytes, files::PLAIN)
            }
        })
        .await?;
    }
    let missing = missing_blobs(base, entry)?;
    if missing.is_empty() {
        return Ok(());
    }
    let registry = match registry {
        Some(registry) => registry,
        None => Arc::new(connect(context, base.reference, mirrors, transport).await?),
    };
    let (count, bytes) = (missing.len(), missing.iter().map(|blob| blob.size).sum());
    let bar = context.ui.byte_bar("pulling", bytes);
    each(missing, |blob| {
        let (registry, bar) = (registry.clone(), bar.clone());
        async move { registry.download(&blob, &bar).await }
    })
    .await?;
    bar.finish_and_clear();
    let what = format!("{count} blobs ({})", HumanBytes(bytes));
    context.ui.say(format!("base {}: pulled {what}", base.reference));
    Ok(())
}

/// The bytes of what was pulled, if they are still right.
fn here(digest: &str) -> Option<Vec<u8>> {
    fs::read(paths::base_blob(digest)).ok().filter(|bytes| sha256(bytes) == digest)
}

fn manifest(entry: &Entry, platform: &Platform) -> Result<ImageManifest> {
    let digest = &entry.platforms[&platform.to_string()];
    let bytes = here(digest).context("its manifest is gone")?;
    ImageManifest::from_reader(bytes.as_slice())
        .with_context(|| format!("cannot read the manifest for {platform}"))
}

/// The configurations and layers that are not here yet, each once.
fn missing_blobs(base: &Wanted, entry: &Entry) -> Result<Vec<Blob>> {
    let mut missing: BTreeMap<String, Blob> = BTreeMap::new();
    for platform in &base.platforms {
        let manifest = manifest(entry, platform)?;
        layers(&manifest).with_context(|| format!("cannot use it for {platform}"))?;
        let layers = manifest.layers().iter().map(|it| (it, "a layer"));
        for (descriptor, what) in layers.chain([(manifest.config(), "the configuration")]) {
            let digest = descriptor.digest().to_string();
            ensure!(digest.starts_with("sha256:"), "cannot check the digest `{digest}`");
            if !missing.contains_key(&digest) && here(&digest).is_none() {
                let path = paths::base_blob(&digest);
                let what = format!("{what} for {platform}");
                let blob = Blob { digest: digest.clone(), size: descriptor.size(), path, what };
                missing.insert(digest, blob);
            }
        }
    }
    Ok(missing.into_values().collect())
}

/// What a manifest of ours says of the layers of `manifest`.
fn layers(manifest: &ImageManifest) -> Result<Vec<PulledLayer>> {
    let layer = |layer: &Descriptor| {
        let media_type = layer.media_type().to_string();
        let docker = DOCKER_LAYERS.iter().find(|(name, _)| *name == media_type);
        let media_type = match (docker, layer.media_type()) {
            (Some((_, same)), _) => same.clone(),
            (
                None,
                plain @ (MediaType::ImageLayer
                | MediaType::ImageLayerGzip
                | MediaType::ImageLayerZstd),
            ) => plain.clone(),
            _ => bail!(
                "it has a layer of type `{media_type}`, which may be kept elsewhere or under lock \
                 and key; choose a base without"
            ),
        };
        let path = paths::base_blob(layer.digest().as_ref());
        let descriptor = Descriptor::new(media_type, layer.size(), layer.digest().clone());
        Ok(PulledLayer { descriptor, path })
    };
    manifest.layers().iter().map(layer).collect()
}

/// Reads what was pulled, for all platforms at once.
fn read(base: &Wanted, entry: &Entry) -> Result<Vec<(&'static Platform, Pulled)>> {
    thread::scope(|scope| {
        let threads: Vec<_> = base
            .platforms
            .iter()
            .map(|platform| (*platform, scope.spawn(move || read_one(entry, platform))))
            .collect();
        let done = threads.into_iter().map(|(platform, thread)| {
            let pulled = thread.join().expect("reading a base does not panic");
            Ok((platform, pulled.with_context(|| format!("cannot use it for {platform}"))?))
        });
        done.collect()
    })
}

fn read_one(entry: &Entry, platform: &Platform) -> Result<Pulled> {
    let manifest = manifest(entry, platform)?;
    let config = here(manifest.config().digest().as_ref());
    let config = config.context("its configuration is gone")?;
    let config: Value = serde_json::from_slice(&config).context("cannot read its configuration")?;
    // They are for whoever builds on it, and we run no commands.
    let triggers = config.pointer("/config/OnBuild").and_then(Value::as_array);
    ensure!(triggers.is_none_or(Vec::is_empty), "it has ONBUILD instructions; choose one without");
    let layers = layers(&manifest)?;
    let told = config.pointer("/rootfs/diff_ids").and_then(Value::as_array);
    let told = told.map_or(&[][..], Vec::as_slice);
    let (count, expected) = (layers.len(), told.len());
    ensure!(
        count == expected,
        "its manifest has {count} layers and its configuration {expected}; engines would refuse it"
    );
    let mut lower = Lower::default();
    for (PulledLayer { descriptor, path }, told) in layers.iter().zip(told) {
        let bytes = fs::read(path).context("a layer is gone")?;
        let found = add(&mut lower, layer::unpacked(descriptor.media_type(), &bytes)?)?;
        ensure!(
            told.as_str() == Some(&found),
            "its layer `{}` unpacks to {found}, and not to what its configuration says; engines \
             would refuse it",
            descriptor.digest()
        );
    }
    Ok(Pulled { config, layers, lower })
}

/// Puts the layer on top of `lower`; gives the digest of its bytes.
fn add(lower: &mut Lower, layer: impl Read) -> Result<String> {
    let mut layer = Hashed { inner: layer, hash: Sha256::new() };
    lower.add(&mut layer)?;
    // What comes after the last file is a part of it, too.
    io::copy(&mut layer, &mut io::sink()).context("cannot read a layer")?;
    Ok(format!("sha256:{}", hex::encode(layer.hash.finalize())))
}

/// What is read through it, it remembers.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
