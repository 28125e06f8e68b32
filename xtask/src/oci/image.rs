//! The built-in builder: an image is its layers, and JSON that names them by digest.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, Config, ConfigBuilder, Descriptor, HistoryBuilder,
    ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType, Os,
    PlatformBuilder, RootFsBuilder, SCHEMA_VERSION,
};
use serde::Serialize;

use super::descriptor;
use super::layer::Layer;
use crate::folder::Files;
use crate::platform::Platform;
use crate::spec::{ENTRYPOINT, ImageSpec, Labels};

/// Under which name docker and containerd load an image, in full, as they write `pid1:TAG`.
const ANNOTATION_DOCKER_NAME: &str = "io.containerd.image.name";

/// The layers of an image for one platform, the lowest first, each with what it holds.
pub struct Stack<'a> {
    /// For which platform.
    pub platform: &'static Platform,
    /// What each layer holds, and the layer.
    pub layers: Vec<(String, &'a Layer)>,
}

/// An image, built: every byte of its layout.
pub struct Image<'a> {
    layers: BTreeMap<String, &'a [u8]>,
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
        let index = index(manifests, Some(annotations(labels)))?;
        let mut descriptor = documents.add(MediaType::ImageIndex, &index)?;
        descriptor.set_annotations(Some(names(tag)));
        let top = bytes(&self::index(vec![descriptor.clone()], None)?)?;
        let layers = stacks.iter().flat_map(|stack| &stack.layers);
        let layers = layers.map(|(_, it)| (it.descriptor.digest().digest().to_string(), &*it.blob));
        Ok(Image { layers: layers.collect(), documents: documents.0, descriptor, top })
    }

    /// The files of its layout
    /// (<https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>).
    pub fn files(&self) -> Files<'_> {
        let layers = self.layers.iter().map(|(name, bytes)| (name, *bytes));
        let documents = self.documents.iter().map(|(name, bytes)| (name, bytes.as_slice()));
        let blobs = layers.chain(documents);
        let mut files: Files =
            blobs.map(|(name, bytes)| (format!("blobs/sha256/{name}"), bytes)).collect();
        files.push(("oci-layout".to_string(), br#"{"imageLayoutVersion":"1.0.0"}"#));
        files.push(("index.json".to_string(), &self.top));
        files
    }
}

/// The JSON blobs of an image, by digest.
#[derive(Default)]
struct Documents(BTreeMap<String, Vec<u8>>);

impl Documents {
    fn add(&mut self, media_type: MediaType, document: &impl Serialize) -> Result<Descriptor> {
        let bytes = bytes(document)?;
        let descriptor = descriptor(media_type, &bytes)?;
        self.0.insert(descriptor.digest().digest().to_string(), bytes);
        Ok(descriptor)
    }
}

/// Through a `Value`, which sorts keys: the maps of oci-spec come in another order in every run.
fn bytes(document: &impl Serialize) -> Result<Vec<u8>> {
    let value = serde_json::to_value(document).context("cannot write JSON")?;
    serde_json::to_vec(&value).context("cannot write JSON")
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
    let config = configuration(spec, labels, stack)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(documents.add(MediaType::ImageConfig, &config)?)
        .layers(stack.layers.iter().map(|(_, it)| it.descriptor.clone()).collect::<Vec<_>>())
        .annotations(annotations(labels))
        .build()
        .context("cannot make a manifest")?;
    let mut descriptor = documents.add(MediaType::ImageManifest, &manifest)?;
    let mut platform = PlatformBuilder::default()
        .architecture(Arch::from(stack.platform.architecture))
        .os(Os::Linux);
    if let Some(variant) = stack.platform.variant {
        platform = platform.variant(variant);
    }
    descriptor.set_platform(Some(platform.build().context("cannot name a platform")?));
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
        .working_dir(spec.workdir)
        .labels(annotations(labels));
    if !spec.cmd.is_empty() {
        config = config.cmd(spec.cmd);
    }
    if let Some(user) = spec.user {
        config = config.user(user);
    }
    config.build().context("cannot make a configuration")
}
