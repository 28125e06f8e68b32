//! A target folder with binaries in it, and what can be read from the layouts built there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

/// Everything in the images of these tests is dated so: 2026-01-02 03:04:05 UTC.
pub const EPOCH: &str = "1767323045";

/// The platforms, as flags have them.
pub const PLATFORMS: [&str; 9] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/386",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
    "linux/loong64",
];

/// A target folder, removed when dropped.
pub struct Place(TempDir);

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub kind: tar::EntryType,
    pub mode: u32,
    pub owner: (u64, u64),
    pub link: Option<PathBuf>,
    pub bytes: Vec<u8>,
}

impl Place {
    /// Holds a file in the place of each binary, different for each platform.
    pub fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        for platform in PLATFORMS {
            for package in ["pid1", "docker-testing"] {
                let binary = place.binary(platform, package);
                fs::create_dir_all(binary.parent().unwrap()).unwrap();
                fs::write(binary, format!("{package} for {platform}")).unwrap();
            }
        }
        place
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn binary(&self, platform: &str, package: &str) -> PathBuf {
        self.path().join("dist/bin").join(platform.replace('/', "-")).join(package)
    }

    pub fn layout(&self, name: &str) -> PathBuf {
        self.path().join("dist/oci").join(name)
    }

    pub fn context(&self, name: &str) -> PathBuf {
        self.path().join("dist/context").join(name)
    }

    /// `cargo xtask image`, to be run here.
    pub fn command(&self) -> Command {
        self.xtask(&["image"])
    }

    /// A command of the xtask, to be run here.
    pub fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments).env("SOURCE_DATE_EPOCH", EPOCH);
        command.env("CARGO_TARGET_DIR", self.path());
        command
    }

    /// Builds; gives what was printed.
    #[track_caller]
    pub fn build(&self, arguments: &[&str]) -> String {
        succeeds(self.command().args(arguments))
    }

    pub fn json(&self, name: &str, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.layout(name).join(file)).unwrap()).unwrap()
    }

    /// The blob that `descriptor` is about.
    pub fn blob(&self, name: &str, descriptor: &Value) -> Vec<u8> {
        fs::read(blob_path(&self.layout(name), descriptor)).unwrap()
    }

    pub fn document(&self, name: &str, descriptor: &Value) -> Value {
        serde_json::from_slice(&self.blob(name, descriptor)).unwrap()
    }

    pub fn index(&self, name: &str) -> Value {
        self.document(name, &self.json(name, "index.json")["manifests"][0])
    }

    /// The manifests, in the order of the index.
    pub fn manifests(&self, name: &str) -> Vec<Value> {
        let index = self.index(name);
        let descriptors = index["manifests"].as_array().unwrap().iter();
        descriptors.map(|descriptor| self.document(name, descriptor)).collect()
    }

    /// The configurations, in the order of the index.
    pub fn configurations(&self, name: &str) -> Vec<Value> {
        let manifests = self.manifests(name);
        manifests.iter().map(|manifest| self.document(name, &manifest["config"])).collect()
    }

    /// All files of the image for the first platform, by path.
    pub fn files(&self, name: &str) -> BTreeMap<String, File> {
        files(&self.layout(name), &self.manifests(name)[0])
    }
}

/// All files of the image with this manifest, by path.
pub fn files(layout: &Path, manifest: &Value) -> BTreeMap<String, File> {
    let mut files = BTreeMap::new();
    for layer in manifest["layers"].as_array().unwrap() {
        let blob = fs::read(blob_path(layout, layer)).unwrap();
        files.extend(entries(&blob));
    }
    files
}

/// The entries of a layer, in their order.
pub fn entries(layer: &[u8]) -> Vec<(String, File)> {
    let mut archive = tar::Archive::new(GzDecoder::new(layer));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = entry.header();
        let file = File {
            kind: header.entry_type(),
            // Podman also writes the type of the file into it.
            mode: header.mode().unwrap() & 0o7777,
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            link: entry.link_name().unwrap().map(std::borrow::Cow::into_owned),
            bytes,
        };
        (entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_string(), file)
    });
    entries.collect()
}

/// The file of the blob that `descriptor` is about.
pub fn blob_path(layout: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    layout.join("blobs").join(digest.replace(':', "/"))
}

/// Runs `command`; gives what it printed.
#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `command`, which must fail with `error: …` as its last words; gives these.
#[track_caller]
pub fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {}", stderr(&output));
    assert_eq!(output.stdout, b"", "{command:?}");
    let stderr = stderr(&output);
    let start = stderr.rfind("error: ").unwrap_or_else(|| panic!("{command:?}: {stderr}"));
    stderr[start + "error: ".len()..].trim_end().to_string()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every path below `folder`, sorted, with its bytes where it is a file.
pub fn listing(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listing(&path));
        }
        found.insert(path.clone(), fs::read(&path).ok());
    }
    found
}

/// Makes `path` a program that runs `script`. Another process writes it: were it open for writing
/// here, whatever other tests start would have it open too until its own exec, and it could not be
/// run (ETXTBSY).
pub fn script(path: &Path, script: &str) {
    let mut install = Command::new("install");
    install.args(["--mode=755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut install = install.spawn().unwrap();
    write!(install.stdin.take().unwrap(), "#!/bin/sh\n{script}\n").unwrap();
    assert!(install.wait().unwrap().success());
}
