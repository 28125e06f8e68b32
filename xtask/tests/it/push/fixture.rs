//! A target folder with layouts in it, and xtask to push them with.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, ImageConfigurationBuilder, ImageIndex,
    ImageIndexBuilder, ImageManifest, ImageManifestBuilder, MediaType, Os, PlatformBuilder,
    RootFsBuilder, SCHEMA_VERSION,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// How long one run of xtask may take, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(90);

/// How often we look whether something has come about.
const POLL: Duration = Duration::from_millis(10);

/// What xtask plans: the same for every project.
static PLAN: OnceLock<serde_json::Value> = OnceLock::new();

/// A target folder of our own, and a home without logins.
pub struct Project {
    pub folder: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Project {
    /// With a layout of each image, for `platforms`; the first layer has `size` bytes.
    pub fn new(images: &[&str], platforms: &[&str], size: usize) -> Project {
        let project = Project { folder: TempDir::new().expect("a folder can be made") };
        for image in images {
            write_layout(&project.layout(image), image, platforms, size);
        }
        project
    }

    pub fn layout(&self, image: &str) -> PathBuf {
        self.folder.path().join("target/dist/oci").join(image)
    }

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// `sha256:…` of the image's index, and its bytes.
    pub fn index(&self, image: &str) -> (String, Vec<u8>) {
        let layout = self.layout(image);
        let top = ImageIndex::from_file(layout.join("index.json")).expect("we wrote it");
        let digest = top.manifests()[0].digest().to_string();
        let bytes = self.blob(image, &digest);
        (digest, bytes)
    }

    pub fn blob(&self, image: &str, digest: &str) -> Vec<u8> {
        fs::read(self.blob_path(image, digest)).expect("we wrote it")
    }

    pub fn blob_path(&self, image: &str, digest: &str) -> PathBuf {
        self.layout(image).join("blobs").join(digest.replace(':', "/"))
    }

    /// The manifests of the image, with their digests.
    pub fn manifests(&self, image: &str) -> Vec<(String, ImageManifest)> {
        let (_, index) = self.index(image);
        let index = ImageIndex::from_reader(index.as_slice()).expect("we wrote it");
        let digests = index.manifests().iter().map(|it| it.digest().to_string());
        let read = |digest: String| {
            let bytes = self.blob(image, &digest);
            (digest, ImageManifest::from_reader(bytes.as_slice()).expect("we wrote it"))
        };
        digests.map(read).collect()
    }

    /// The tags that the plan has for the image.
    pub fn tags(&self, image: &str) -> Vec<String> {
        let plan = PLAN.get_or_init(|| {
            let plan = self.run(&["plan", "--json"]).stdout;
            serde_json::from_str(&plan).expect("the plan is JSON")
        });
        let images = plan["images"].as_array().expect("it lists the images");
        let image = images.iter().find(|it| it["name"] == image).expect("it knows the image");
        serde_json::from_value(image["tags"].clone()).expect("tags are strings")
    }

    /// xtask in this target folder, with nothing of the user's around it.
    pub fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments).env_clear();
        command.env("CARGO_TARGET_DIR", self.folder.path().join("target"));
        command.env("HOME", self.home()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.xtask(arguments))
    }

    /// Pushes, which must succeed.
    #[track_caller]
    pub fn push(&self, arguments: &[&str]) -> Run {
        let run = self.run(&[&["push"], arguments].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run
    }

    /// Pushes, which must fail with `expected` as its last line.
    #[track_caller]
    pub fn cannot_push(&self, arguments: &[&str], expected: &str) {
        let run = self.run(&[&["push"], arguments].concat());
        fails(&run, expected);
    }
}

/// The run failed, with `expected` as its last line.
#[track_caller]
pub fn fails(run: &Run, expected: &str) {
    assert_eq!(run.stderr.lines().last(), Some(expected), "{}", run.stderr);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
}

/// Runs the command to its end, with nothing to read.
#[track_caller]
pub fn run(command: &mut Command) -> Run {
    run_with(command, b"")
}

/// Runs the command to its end, with `input` to read.
#[track_caller]
pub fn run_with(command: &mut Command, input: &[u8]) -> Run {
    Running::start(command, input).finish()
}

/// A command that runs.
pub struct Running {
    pub child: Child,
    output: TempDir,
}

impl Running {
    #[track_caller]
    pub fn start(command: &mut Command, input: &[u8]) -> Running {
        let output = TempDir::new().expect("a folder can be made");
        let file = |name| fs::File::create(output.path().join(name)).expect("a file can be made");
        fs::write(output.path().join("stdin"), input).expect("a file can be written");
        let stdin = fs::File::open(output.path().join("stdin")).expect("it is there");
        command.stdin(stdin).stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().expect("the command is there");
        Running { child, output }
    }

    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    #[track_caller]
    pub fn finish(mut self) -> Run {
        let mut status = None;
        let ended = comes_about(LIMIT, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        if !ended {
            let _ = self.child.kill();
            panic!("it did not end: {}", self.stderr());
        }
        let code = status.and_then(|it| it.code());
        Run { code, stdout: self.read("stdout"), stderr: self.stderr() }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.output.path().join(name)).expect("what we print is text")
    }
}

/// Waits until `condition` holds; says whether it did in time.
pub fn comes_about(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// Runs a tool that must succeed, and gives what it printed.
#[track_caller]
pub fn tool(name: &str, arguments: &[&str], folder: &Path) -> String {
    let mut command = Command::new(name);
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|err| panic!("`{name}` is needed here: {err}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Writes an image with, on each platform, a layer of its own and one that all share.
fn write_layout(root: &Path, seed: &str, platforms: &[&str], size: usize) {
    let shared = write(root, MediaType::ImageLayerGzip, &noise(seed, 3000));
    let manifests: Vec<_> = platforms
        .iter()
        .enumerate()
        .map(|(at, platform)| {
            let size = if at == 0 { size } else { 2000 };
            let bytes = noise(&format!("{seed} {platform}"), size);
            let layer = write(root, MediaType::ImageLayerGzip, &bytes);
            write_manifest(root, platform, vec![shared.clone(), layer])
        })
        .collect();
    let index = write_json(root, MediaType::ImageIndex, &index_of(manifests));
    let top = serde_json::to_vec(&index_of(vec![index])).expect("it is plain data");
    fs::write(root.join("index.json"), top).expect("a file can be written");
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("a file can be written");
}

fn write_manifest(root: &Path, platform: &str, layers: Vec<Descriptor>) -> Descriptor {
    let mut parts = platform.split('/').skip(1);
    let architecture = Arch::from(parts.next().expect("a platform has an architecture"));
    let variant = parts.next();
    let mut config = ImageConfigurationBuilder::default();
    if let Some(variant) = variant {
        config = config.variant(variant);
    }
    let config = config
        .architecture(architecture.clone())
        .os(Os::Linux)
        .rootfs(RootFsBuilder::default().diff_ids(Vec::new()).build().expect("it is complete"))
        .config(ConfigBuilder::default().build().expect("it is complete"))
        .build()
        .expect("it is complete");
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(write_json(root, MediaType::ImageConfig, &config))
        .layers(layers)
        .build()
        .expect("it is complete");
    let mut platform = PlatformBuilder::default().os(Os::Linux).architecture(architecture);
    if let Some(variant) = variant {
        platform = platform.variant(variant);
    }
    let mut descriptor = write_json(root, MediaType::ImageManifest, &manifest);
    descriptor.set_platform(Some(platform.build().expect("it is complete")));
    descriptor
}

fn index_of(manifests: Vec<Descriptor>) -> ImageIndex {
    ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()
        .expect("it is complete")
}

/// Spaced out, so that whoever writes it again instead of copying it changes the digest.
fn write_json(root: &Path, media_type: MediaType, value: &impl Serialize) -> Descriptor {
    write(root, media_type, &serde_json::to_vec_pretty(value).expect("it is plain data"))
}

fn write(root: &Path, media_type: MediaType, bytes: &[u8]) -> Descriptor {
    let hash = hex::encode(Sha256::digest(bytes));
    let folder = root.join("blobs/sha256");
    fs::create_dir_all(&folder).expect("a folder can be made");
    fs::write(folder.join(&hash), bytes).expect("a file can be written");
    let digest: oci_spec::image::Digest = format!("sha256:{hash}").parse().expect("it is one");
    let descriptor = DescriptorBuilder::default().media_type(media_type).digest(digest);
    descriptor.size(bytes.len() as u64).build().expect("it is complete")
}

/// What a layer's bytes may be: packed, a little over `length`, and other ones for each seed.
fn noise(seed: &str, length: usize) -> Vec<u8> {
    let blocks = (0..32).flat_map(|at| Sha256::digest(format!("{seed} {at}")).to_vec());
    let bytes = blocks.collect::<Vec<_>>().repeat(length / 1024 + 1);
    let mut packed = GzEncoder::new(Vec::new(), Compression::none());
    packed.write_all(&bytes[..length]).expect("memory takes it");
    packed.finish().expect("memory takes it")
}
