//! Who builds an image: ourselves, or docker or podman from its Dockerfile. What they make is put
//! into the shape of ours.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use oci_spec::image::{ImageIndex, ImageManifest, MediaType};
use serde_json::Value;
use tempfile::TempDir;

use crate::base::Pulled;
use crate::oci;
use crate::oci::image::Made;
use crate::oci::layout::Layout;
use crate::platform::Platform;
use crate::registry::Mirror;
use crate::{Context, paths, process};

/// What `--builder` may say.
const BUILDERS: &str = "built-in, docker, docker:NAME (a builder that `docker buildx ls` lists) \
                        and podman";

/// How long a builder may take to say that it is there.
const PATIENCE: Duration = Duration::from_mins(2);

/// Who builds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Builder {
    /// We do, without any daemon.
    #[default]
    BuiltIn,
    /// `BuildKit`, through docker's buildx: its default builder or that of this name, which may be
    /// remote or in Kubernetes.
    Docker(Option<String>),
    /// Podman.
    Podman,
}

impl FromStr for Builder {
    type Err = String;

    fn from_str(written: &str) -> Result<Builder, String> {
        match written.split_once(':') {
            None if written == "built-in" => Ok(Builder::BuiltIn),
            None if written == "docker" => Ok(Builder::Docker(None)),
            None if written == "podman" => Ok(Builder::Podman),
            Some(("docker", name)) if !name.is_empty() => {
                Ok(Builder::Docker(Some(name.to_string())))
            }
            _ => Err(format!("no such builder, the builders are {BUILDERS}")),
        }
    }
}

impl fmt::Display for Builder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Builder::BuiltIn => out.write_str("built-in"),
            Builder::Docker(None) => out.write_str("docker"),
            Builder::Docker(Some(name)) => write!(out, "docker:{name}"),
            Builder::Podman => out.write_str("podman"),
        }
    }
}

impl Builder {
    /// Fails, with the remedy, unless it answers: before an hour is spent on binaries.
    pub fn ensure_ready(&self, context: &Context) -> Result<()> {
        let (words, remedy): (&[&str], _) = match self {
            Builder::BuiltIn => return Ok(()),
            Builder::Docker(None) => (
                &["docker", "buildx", "inspect"],
                "install docker and buildx and start it, or say in DOCKER_HOST where it is".into(),
            ),
            Builder::Docker(Some(name)) => (
                &["docker", "buildx", "inspect", name],
                format!(
                    "`docker buildx ls` lists the builders, `docker buildx create --name {name}` \
                     makes one"
                ),
            ),
            Builder::Podman => {
                (&["podman", "--version"], "install it (on Debian 12 `.ci/install` does)".into())
            }
        };
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let answer = process::output(&context.ui, &context.interrupt, command, PATIENCE);
        let answer = answer.and_then(|answer| {
            // buildx succeeds where there is no daemon, and says so.
            match answer.lines().find_map(|line| line.strip_prefix("Error:")) {
                Some(cause) => bail!("{}", cause.trim()),
                None => Ok(()),
            }
        });
        answer.with_context(|| format!("cannot build with {self}; {remedy}"))
    }
}

/// Who builds, and how it finds bases.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    pub builder: &'a Builder,
    pub mirrors: &'a [Mirror],
    /// Whether all registries may do without TLS, not only those of this machine.
    pub plain_http: bool,
}

impl Way<'_> {
    /// We do it.
    pub fn built_in() -> Way<'static> {
        Way { builder: &Builder::BuiltIn, mirrors: &[], plain_http: false }
    }
}

/// One image to build from its Dockerfile, whose context is written.
pub struct Job<'a> {
    pub name: &'a str,
    pub platforms: &'a [&'static Platform],
    /// The text of the Dockerfile.
    pub dockerfile: String,
    /// The values of its `ARG`s.
    pub arguments: Vec<(&'static str, String)>,
    /// The time of everything in it, in seconds since 1970.
    pub epoch: i64,
    /// Whether its base comes without TLS.
    pub plain_http: bool,
}

/// What was made, until it is dropped.
pub struct Output {
    /// An image for each platform, in their order.
    pub made: Vec<Made>,
    _folder: TempDir,
}

/// Has `builder` build it. Whatever goes wrong, nothing of it stays but what the builder
/// keeps to be quicker next time.
pub fn build(context: &Context, builder: &Builder, job: &Job) -> Result<Output> {
    // On the layouts' file system, so that layers need not be copied.
    let dist = paths::dist();
    fs::create_dir_all(&dist).with_context(|| format!("cannot create `{}`", dist.display()))?;
    let folder = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(&dist);
    let folder = folder.context("cannot make a folder for the builder")?;
    date(&paths::context(job.name), job.epoch).context("cannot date the context")?;
    let dockerfile = folder.path().join("Dockerfile");
    fs::write(&dockerfile, &job.dockerfile).context("cannot write a Dockerfile")?;
    let made = match builder {
        Builder::BuiltIn => bail!("cannot build `{}` from a Dockerfile: we need none", job.name),
        Builder::Docker(name) => docker(context, name.as_deref(), job, folder.path()),
        Builder::Podman => podman(context, job, folder.path()),
    };
    Ok(Output { made: made?, _folder: folder })
}

/// Dates every file below `folder`. `BuildKit` makes younger ones as old as the image, and leaves
/// older ones: what was written for an earlier commit would not be as it is elsewhere.
fn date(folder: &Path, epoch: i64) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch.try_into()?);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            date(&path, epoch)?;
        } else {
            File::open(&path)?.set_modified(time)?;
        }
    }
    Ok(())
}

/// Puts the layers of `base` back, byte for byte. `BuildKit` dates their files anew, podman
/// compresses them in its own way: whoever has the base would have to pull them again.
pub fn keep_base(made: &mut Made, base: &Pulled) -> Result<()> {
    let lower = base.layers.len();
    let step = || format!("cannot use what was built for {}", made.platform);
    let mut config: Value = serde_json::from_slice(&made.config).with_context(step)?;
    let kept = base.config.pointer("/rootfs/diff_ids").and_then(Value::as_array);
    let kept = kept.filter(|kept| kept.len() == lower).context("the base misses layers");
    let found = config.pointer_mut("/rootfs/diff_ids").and_then(Value::as_array_mut);
    let found = found.filter(|it| it.len() == made.layers.len() && it.len() > lower);
    let found = found.context("it does not stand on its base").with_context(step)?;
    found.splice(..lower, kept.with_context(step)?.iter().cloned());
    made.config = oci::json(&config)?;
    let layers = base.layers.iter().map(|it| (it.descriptor.clone(), it.path.clone()));
    made.layers.splice(..lower, layers);
    Ok(())
}

fn docker(context: &Context, builder: Option<&str>, job: &Job, folder: &Path) -> Result<Vec<Made>> {
    let layout = folder.join("layout");
    let platforms: Vec<_> = job.platforms.iter().map(ToString::to_string).collect();
    let mut command = Command::new("docker");
    // The builder of a context is only there for who is in the context.
    let of_context = builder.filter(|name| is_context(name));
    command.args(of_context.iter().flat_map(|name| ["--context", name]));
    command.args(["buildx", "build"]);
    command.args(builder.iter().flat_map(|name| ["--builder", name]));
    // Those would be manifests beside each platform's, and no two builds have the same.
    command.args(["--provenance=false", "--sbom=false"]);
    // There is little to save where files are only copied, and much to wonder about.
    command.arg("--no-cache");
    command.arg(format!("--platform={}", platforms.join(",")));
    // Not --push: buildx 0.13.1 pushes twice at once, and it would not be what is tested.
    command.arg(format!(
        "--output=type=oci,tar=false,rewrite-timestamp=true,dest={}",
        layout.display()
    ));
    command.env("SOURCE_DATE_EPOCH", job.epoch.to_string());
    run(context, command, job, folder)
        .with_context(|| format!("cannot build `{}` with docker", job.name))?;
    job.platforms.iter().map(|platform| made(&layout, platform, Platform::is_of)).collect()
}

/// Whether docker knows a context of this name.
fn is_context(name: &str) -> bool {
    let mut inspect = Command::new("docker");
    inspect.args(["context", "inspect", name]).stdin(Stdio::null());
    inspect.output().is_ok_and(|it| it.status.success())
}

fn podman(context: &Context, job: &Job, folder: &Path) -> Result<Vec<Made>> {
    let build = |platform: &&'static Platform| {
        let layout = folder.join(platform.slug());
        podman_one(context, job, folder, platform, &layout)
            .with_context(|| format!("cannot build `{}` with podman", job.name))?;
        // It takes no word for arm/v6, and says v7 or v8 in its place: whose it is we know.
        made(&layout, platform, |_, _| true)
    };
    job.platforms.iter().map(build).collect()
}

fn podman_one(
    context: &Context,
    job: &Job,
    folder: &Path,
    platform: &Platform,
    layout: &Path,
) -> Result<()> {
    let number = folder.join("image");
    let mut command = Command::new("podman");
    command.args(["build", "--isolation=chroot", "--format=oci"]);
    command.args(["--layers=false", "--identity-label=false"]);
    command.arg(format!("--timestamp={}", job.epoch)).arg(format!("--platform={platform}"));
    if job.plain_http {
        command.arg("--tls-verify=false");
    }
    command.arg("--iidfile").arg(&number);
    run(context, command, job, folder)?;
    let id = fs::read_to_string(&number).context("cannot read what podman built")?;
    let image = Image(id.trim().to_string());
    let mut push = Command::new("podman");
    push.args(["push", "--quiet", &image.0]).arg(format!("oci:{}", layout.display()));
    process::run(&context.ui, &context.interrupt, push)
}

/// An image in podman's store, which only we need.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        // Where it cannot be removed it is only unused.
        let mut remove = Command::new("podman");
        let _ = remove.args(["image", "rm", "--force", &self.0]).stdin(Stdio::null()).output();
    }
}

/// Runs a builder with what all builders are told.
fn run(context: &Context, mut command: Command, job: &Job, folder: &Path) -> Result<()> {
    for (name, value) in &job.arguments {
        command.arg(format!("--build-arg={name}={value}"));
    }
    command.arg("--file").arg(folder.join("Dockerfile")).arg(paths::context(job.name));
    process::run(&context.ui, &context.interrupt, command)
}

/// What `layout` has for `platform`: the first image whose architecture and variant satisfy `is`.
fn made(
    layout: &Path,
    platform: &'static Platform,
    is: impl Fn(&Platform, &Value) -> bool,
) -> Result<Made> {
    let layout = Layout::open(layout)?;
    for manifest in manifests(&layout, &layout.top()?)? {
        let config = layout.read_blob(manifest.config())?;
        let value = serde_json::from_slice(&config).context("cannot read a configuration")?;
        if is(platform, &value) {
            let config = corrected(config, value, platform)?;
            return Ok(Made { platform, config, layers: layers(&layout, &manifest)? });
        }
    }
    bail!("cannot find what was built for {platform}")
}

/// All manifests that `index` leads to.
fn manifests(layout: &Layout, index: &ImageIndex) -> Result<Vec<ImageManifest>> {
    let mut found = Vec::new();
    for descriptor in index.manifests() {
        let bytes = layout.read_blob(descriptor)?;
        if *descriptor.media_type() == MediaType::ImageIndex {
            let index = ImageIndex::from_reader(bytes.as_slice());
            found.extend(manifests(layout, &index.context("cannot read an image index")?)?);
        } else {
            let manifest = ImageManifest::from_reader(bytes.as_slice());
            found.push(manifest.context("cannot read a manifest")?);
        }
    }
    Ok(found)
}

fn layers(
    layout: &Layout,
    manifest: &ImageManifest,
) -> Result<Vec<(oci_spec::image::Descriptor, PathBuf)>> {
    let checked = manifest.layers().iter().map(|layer| {
        layout.read_blob(layer)?;
        Ok((layer.clone(), layout.blob_path(layer)))
    });
    checked.collect()
}

/// The configuration, for `platform` in our words: its own bytes where it says so already.
fn corrected(bytes: Vec<u8>, mut config: Value, platform: &Platform) -> Result<Vec<u8>> {
    if platform.is_of(&config) {
        return Ok(bytes);
    }
    let fields = config.as_object_mut().context("a configuration is no object")?;
    fields.insert("architecture".to_string(), platform.architecture.into());
    match platform.variant {
        Some(variant) => fields.insert("variant".to_string(), variant.into()),
        None => fields.remove("variant"),
    };
    serde_json::to_vec(&config).context("cannot write a configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(platform: &str, config: &str, expected: &str) {
        let value = serde_json::from_str(config).unwrap();
        let platform = platform.parse().unwrap();
        let corrected = corrected(config.as_bytes().to_vec(), value, platform).unwrap();
        assert_eq!(String::from_utf8(corrected).unwrap(), expected);
    }

    #[test]
    fn a_wrong_variant_is_corrected_and_a_right_one_leaves_every_byte() {
        let right = r#"{ "variant":"v6", "architecture":"arm" }"#;
        becomes("linux/arm/v6", right, right);
        let v7 = r#"{"architecture":"arm","variant":"v7"}"#;
        becomes("linux/arm/v6", v7, r#"{"architecture":"arm","variant":"v6"}"#);
        let v1 = r#"{"architecture":"386","variant":"v1"}"#;
        becomes("linux/386", v1, r#"{"architecture":"386"}"#);
        let v8 = r#"{"architecture":"arm64","variant":"v8"}"#;
        becomes("linux/arm64", v8, v8);
    }

    #[test]
    fn a_builder_is_named_and_an_unknown_one_names_the_known() {
        assert_eq!("built-in".parse(), Ok(Builder::BuiltIn));
        assert_eq!("docker".parse(), Ok(Builder::Docker(None)));
        assert_eq!("docker:far".parse(), Ok(Builder::Docker(Some("far".to_string()))));
        assert_eq!("podman".parse(), Ok(Builder::Podman));
        for written in ["", "docker:", "podman:x", "kaniko"] {
            let error = written.parse::<Builder>().unwrap_err();
            assert_eq!(error, format!("no such builder, the builders are {BUILDERS}"));
        }
    }
}
