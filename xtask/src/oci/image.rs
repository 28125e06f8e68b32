//! The built-in builder: an image is its layers, and JSON that names them by digest.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::{Context, Result};
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, Config, ConfigBuilder, Descriptor, HistoryBuilder,
    ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType, Os,
    PlatformBuilder, RootFsBuilder, SCHEMA_VERSION,
};
use serde::Serialize;

use super::layer::Layer;
use super::layout::MARKER;
use super::merge::merge;
use super::{descriptor, json};
use crate::base::Pulled;
use crate::folder::{Files, Source};
use crate::platform::Platform;
use crate::spec::{ENTRYPOINT, ImageSpec, Labels};

/// Under which name docker and containerd load an image, in full, as they write `pid1:TAG`.
const ANNOTATION_DOCKER_NAME: &str = "io.containerd.image.name";

/// The layers of an image for one platform, the lowest first, each with what it holds.
pub struct Stack<'a> {
    /// For which platform.
    pub platform: &'static Platform,
    /// The image in a registry that they are put on.
    pub base: Option<&'a Pulled>,
    /// What each layer holds, and the layer.
    pub layers: Vec<(String, &'a Layer)>,
}

/// What another builder made of an image for one platform.
pub struct Made {
    /// For which platform.
    pub platform: &'static Platform,
    /// The bytes of its configuration.
    pub config: Vec<u8>,
    /// Its layers, the lowest first, and where their bytes lie.
    pub layers: Vec<(Descriptor, PathBuf)>,
}

/// An image, built: every byte of its layout.
pub struct Image<'a> {
    layers: BTreeMap<String, Source<'a>>,
    documents: BTreeMap<String, Vec<u8>>,
    /// What a registry and a user know it by.
    pub descriptor: Descriptor,
    top: Vec<u8>,
}

impl<'a> Image<'a> {
    /// Puts an image together: for each of `stacks` a manifest, and over them an index that a
    /// layout names `tag`.
    pub fn new(
        spec: &ImageSpec,
        labels: &Labels,
        tag: &str,
        stacks: &[Stack<'a>],
    ) -> Result<Image<'a>> {
        let mut documents = Documents::default();
        let mut manifests = Vec::new();
        for stack in stacks {
            let manifest = manifest(&mut documents, spec, labels, stack);
            manifests.push(manifest.with_context(|| format!("cannot build {}", stack.platform))?);
        }
        let pulled = stacks.iter().filter_map(|stack| stack.base).flat_map(|base| &base.layers);
        let pulled =
            pulled.map(|it| (&it.descriptor, Source::File(&it.path, it.descriptor.size())));
        let packed = stacks.iter().flat_map(|stack| &stack.layers);
        let packed = packed.map(|(_, it)| (&it.descriptor, Source::Bytes(&it.blob)));
        let layers = pulled.chain(packed);
        let layers = layers.map(|(it, source)| (it.digest().digest().to_string(), source));
        Image::over(documents, manifests, layers.collect(), labels, tag)
    }

    /// The same around what another builder made.
    pub fn of(labels: &Labels, tag: &str, made: &'a [Made]) -> Result<Image<'a>> {
        let mut documents = Documents::default();
        let mut manifests = Vec::new();
        for Made { platform, config, layers } in made {
            let config = documents.add_bytes(MediaType::ImageConfig, config.clone())?;
            let layers = layers.iter().map(|(descriptor, _)| descriptor.clone()).collect();
            manifests.push(put_manifest(&mut documents, labels, platform, config, layers)?);
        }
        let layers = made.iter().flat_map(|made| &made.layers).map(|(descriptor, path)| {
            let source = Source::File(path, descriptor.size());
            (descriptor.digest().digest().to_string(), source)
        });
        Image::over(documents, manifests, layers.collect(), labels, tag)
    }

    /// Puts an index over the manifests.
    fn over(
        mut documents: Documents,
        manifests: Vec<Descriptor>,
        layers: BTreeMap<String, Source<'a>>,
        labels: &Labels,
        tag: &str,
    ) -> Result<Image<'a>> {
        let index = index(manifests, Some(annotations(labels)))?;
        let mut descriptor = documents.add(MediaType::ImageIndex, &index)?;
        descriptor.set_annotations(Some(names(tag)));
        let top = json(&self::index(vec![descriptor.clone()], None)?)?;
        Ok(Image { layers, documents: documents.0, descriptor, top })
    }

    /// The files of its layout
    /// (<https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>).
    pub fn files(&self) -> Files<'_> {
        let layers = self.layers.iter().map(|(name, source)| (name, *source));
        let documents = self.documents.iter().map(|(name, bytes)| (name, Source::Bytes(bytes)));
        let blobs = layers.chain(documents);
        let mut files: Files =
            blobs.map(|(name, source)| (format!("blobs/sha256/{name}"), source)).collect();
        files.push(("oci-layout".to_string(), Source::Bytes(MARKER)));
        files.push(("index.json".to_string(), Source::Bytes(&self.top)));
        files
    }
}

/// The JSON blobs of an image, by digest.
#[derive(Default)]
struct Documents(BTreeMap<String, Vec<u8>>);

impl Documents {
    fn add(&mut self, media_type: MediaType, document: &impl Serialize) -> Result<Descriptor> {
        self.add_bytes(media_type, json(document)?)
    }

    fn add_bytes(&mut self, media_type: MediaType, bytes: Vec<u8>) -> Result<Descriptor> {
        let descriptor = descriptor(media_type, &bytes)?;
        self.0.insert(descriptor.digest().digest().to_string(), bytes);
        Ok(descriptor)
    }
}

/// `docker load` takes the name from the second, and would make a repository of the first.
fn names(tag: &str) -> HashMap<String, String> {
    HashMap::from([
        (ANNOTATION_REF_NAME.to_string(), tag.to_string()),
        (ANNOTATION_DOCKER_NAME.to_string(), format!("docker.io/library/pid1:{tag}")),
    ])
}

fn annotations(labels: &Labels) -> HashMap<String, String> {
    labels.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect()
}

fn index(
    manifests: Vec<Descriptor>,
    annotations: Option<HashMap<String, String>>,
) -> Result<impl Serialize> {
    let mut index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()
        .context("cannot make an image index")?;
    index.set_annotations(annotations);
    Ok(index)
}

fn manifest(
    documents: &mut Documents,
    spec: &ImageSpec,
    labels: &Labels,
    stack: &Stack,
) -> Result<Descriptor> {
    let mut config = serde_json::to_value(configuration(spec, labels, stack)?)?;
    if let Some(base) = stack.base {
        config = merge(base.config.clone(), config);
    }
    let lower = stack.base.iter().flat_map(|base| &base.layers).map(|it| &it.descriptor);
    let layers = lower.chain(stack.layers.iter().map(|(_, it)| &it.descriptor));
    let config = documents.add(MediaType::ImageConfig, &config)?;
    put_manifest(documents, labels, stack.platform, config, layers.cloned().collect())
}

fn put_manifest(
    documents: &mut Documents,
    labels: &Labels,
    platform: &Platform,
    config: Descriptor,
    layers: Vec<Descriptor>,
) -> Result<Descriptor> {
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .annotations(annotations(labels))
        .build()
        .context("cannot make a manifest")?;
    let mut descriptor = documents.add(MediaType::ImageManifest, &manifest)?;
    let mut name =
        PlatformBuilder::default().architecture(Arch::from(platform.architecture)).os(Os::Linux);
    if let Some(variant) = platform.variant {
        name = name.variant(variant);
    }
    descriptor.set_platform(Some(name.build().context("cannot name a platform")?));
    Ok(descriptor)
}

fn configuration(spec: &ImageSpec, labels: &Labels, stack: &Stack) -> Result<impl Serialize> {
    let created = labels.get(oci_spec::image::ANNOTATION_CREATED).cloned().unwrap_or_default();
    let history = stack.layers.iter().map(|(summary, _)| {
        HistoryBuilder::default()
            .created(created.clone())
            .created_by(format!("cargo xtask image: {summary}"))
            .build()
    });
    let diff_ids: Vec<_> = stack.layers.iter().map(|(_, it)| it.diff_id.clone()).collect();
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build()?;
    let mut configuration = ImageConfigurationBuilder::default()
        .created(created.clone())
        .architecture(Arch::from(stack.platform.architecture))
        .os(Os::Linux)
        .config(config(spec, labels)?)
        .rootfs(rootfs)
        .history(history.collect::<Result<Vec<_>, _>>()?);
    if let Some(variant) = stack.platform.variant {
        configuration = configuration.variant(variant);
    }
    configuration.build().context("cannot make a configuration")
}

fn config(spec: &ImageSpec, labels: &Labels) -> Result<Config> {
    let env: Vec<_> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut config = ConfigBuilder::default()
        .entrypoint(ENTRYPOINT.map(String::from))
        .env(env)
        .labels(annotations(labels));
    if let Some(workdir) = spec.workdir {
        config = config.working_dir(workdir);
    }
    if !spec.cmd.is_empty() {
        config = config.cmd(spec.cmd);
    }
    if let Some(user) = spec.user {
        config = config.user(user);
    }
    config.build().context("cannot make a configuration")
}
