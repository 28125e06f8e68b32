//! That an image built from a generated Dockerfile is ours, by whomever it was built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::place::{Place, blob_path, fails, files, listing, stderr};
use crate::built;
use crate::push::fixture::comes_about;

/// How long a build may take to begin.
const PATIENCE: Duration = Duration::from_mins(1);

/// The Dockerfile of the image `name`.
pub fn path(name: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    top.join("images").join(name).join("Dockerfile")
}

/// What changes from commit to commit, as our build of `name` has it.
pub fn build_arguments(place: &Place, name: &str) -> Vec<String> {
    let labels = &place.index(name)["annotations"];
    let argument = |label: &str| {
        let value = labels[format!("org.opencontainers.image.{label}")].as_str();
        format!("--build-arg={}={}", label.to_uppercase(), value.unwrap_or_default())
    };
    ["version", "revision", "created"].map(argument).into()
}

/// Compares what another builder made with what we made, for every platform: all that decides
/// what runs, and every file. The rest is dates and how layers are cut.
#[track_caller]
pub fn are_same(ours: &Place, theirs: &Place, name: &str) {
    let (our_index, their_index) = (ours.index(name), theirs.index(name));
    assert_eq!(their_index["annotations"], our_index["annotations"]);
    let (our_manifests, their_manifests) = (ours.manifests(name), theirs.manifests(name));
    assert_eq!(their_manifests.len(), our_manifests.len());
    for at in 0..our_manifests.len() {
        let platform = &our_index["manifests"][at]["platform"];
        assert_eq!(&their_index["manifests"][at]["platform"], platform);
        let (ours_, theirs_) = (&our_manifests[at], &their_manifests[at]);
        assert_eq!(theirs_["annotations"], ours_["annotations"], "{platform}");
        let (our_config, their_config) =
            (&mut ours.configurations(name)[at], &mut theirs.configurations(name)[at]);
        // The one variant that arm64 has goes without saying, and BuildKit does not say it.
        for config in [&mut *our_config, &mut *their_config] {
            if config["architecture"] == "arm64" {
                config.as_object_mut().unwrap().remove("variant");
            }
        }
        // BuildKit's, and of no meaning but on Windows.
        their_config["config"].as_object_mut().unwrap().remove("ArgsEscaped");
        for key in ["architecture", "variant", "os", "config"] {
            assert_eq!(their_config[key], our_config[key], "{key} for {platform}");
        }
        let our_files = files(&ours.layout(name), ours_);
        let mut their_files = files(&theirs.layout(name), theirs_);
        // Podman also writes down the root itself.
        their_files.remove("");
        assert_eq!(their_files.keys().collect::<Vec<_>>(), our_files.keys().collect::<Vec<_>>());
        for (path, file) in &our_files {
            assert_eq!(&their_files[path], file, "{path} for {platform}");
        }
    }
}

/// Three platforms: this machine's or another, one that podman has no word for, and one that
/// counts the other way round.
pub const PLATFORMS: [&str; 6] =
    ["--platform", "linux/amd64", "--platform", "linux/arm/v6", "--platform", "linux/s390x"];

/// What is half made when a builder fails.
#[track_caller]
pub fn leaves_nothing_behind(place: &Place, command: &mut Command, said: &str) {
    let error = fails(command);
    assert!(error.contains(said), "{error}");
    assert!(!place.layout("static").exists());
    let left = listing(&place.path().join("dist"));
    let left: Vec<_> = left.keys().filter(|it| it.to_string_lossy().contains(".unf")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Interrupts a build of `static` as soon as there is something that it could leave behind.
#[track_caller]
pub fn leaves_what_was_there_when_interrupted(place: &Place, command: &mut Command) {
    let dist = place.path().join("dist");
    place.build(&["static"]);
    let before = listing(&dist);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let is_half_made = |it: fs::DirEntry| it.file_name().to_string_lossy().starts_with(".unf");
    let begun = || fs::read_dir(&dist).unwrap().any(|it| is_half_made(it.unwrap()));
    assert!(comes_about(PATIENCE, begun));
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = "interrupted; what was half made has been removed\n";
    assert!(stderr(&output).ends_with(error), "{output:?}");
    assert!(listing(&dist) == before);
}

/// Has `builder` build from the real binaries, and runs what came of it.
#[track_caller]
pub fn can_be_smoke_tested(builder: &str, variables: &[(&str, PathBuf)]) {
    let (folder, host) = (built::copied(), built::host());
    for arguments in [&["image", "--builder", builder][..], &["smoke"]] {
        let mut command = built::xtask_in(folder.path());
        command.args(arguments).args(["docker-testing", "--platform", &host]);
        let done = built::done(command.envs(variables.iter().cloned()));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
    }
}

/// Compares the one image of `layout` with ours for the first platform.
#[track_caller]
pub fn is_ours(place: &Place, name: &str, layout: &Path) {
    let read = |descriptor: &Value| -> Value {
        serde_json::from_slice(&fs::read(blob_path(layout, descriptor)).unwrap()).unwrap()
    };
    let top = fs::read(layout.join("index.json")).unwrap();
    let mut manifest = serde_json::from_slice::<Value>(&top).unwrap();
    while manifest.get("manifests").is_some() {
        manifest = read(&manifest["manifests"][0]);
    }
    let mut theirs = read(&manifest["config"]);
    // BuildKit's, and of no meaning but on Windows.
    theirs["config"].as_object_mut().unwrap().remove("ArgsEscaped");
    let ours = &place.configurations(name)[0];
    for key in ["architecture", "variant", "os", "config"] {
        assert_eq!(theirs[key], ours[key], "{key}");
    }
    let (ours, mut theirs) = (place.files(name), files(layout, &manifest));
    // Podman also writes down the root itself.
    theirs.remove("");
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    for (path, ours) in &ours {
        assert_eq!(&theirs[path], ours, "{path}");
    }
}
