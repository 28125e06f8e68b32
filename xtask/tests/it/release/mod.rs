//! The files of a release, made for this machine's platform.

mod manual;
pub mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::built::{done, host};
use crate::dist::{dist_in, place, succeeds};
use crate::push::fixture::tool;

/// A target folder in which all images were packaged.
fn target() -> &'static Path {
    static TARGET: OnceLock<TempDir> = OnceLock::new();
    let made = TARGET.get_or_init(|| {
        let target = place();
        succeeds(dist(target.path()));
        target
    });
    made.path()
}

fn dist(target: &Path) -> crate::built::Done {
    let host = host();
    dist_in(target, &["--platform", &host, "--no-smoke", &host])
}

/// The release folder.
fn folder() -> PathBuf {
    target().join("dist/release")
}

/// The init's name in this machine's archive and release.
fn init() -> String {
    format!("pid1-{}", host().replace('/', "-"))
}

/// What is in `folder`, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What the archive `name` holds, unpacked.
fn unpacked(name: &str) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let archive = folder().join(format!("{name}.tar.gz"));
    tool("tar", &["-xzf", archive.to_str().unwrap()], place.path());
    place
}

#[test]
fn a_release_is_made_again_only_if_something_changed() {
    let target = place();
    let first = succeeds(dist(target.path())).stderr;
    assert!(!first.contains("release: up to date"), "{first}");
    let second = succeeds(dist(target.path())).stderr;
    assert!(second.contains("release: up to date, "), "{second}");
    fs::write(target.path().join("dist/release/NOTES.md"), "changed").unwrap();
    let third = succeeds(dist(target.path())).stderr;
    assert!(!third.contains("release: up to date"), "{third}");
}

#[test]
fn two_releases_of_one_commit_are_the_same_bytes() {
    let other = place();
    succeeds(dist(other.path()));
    let other = other.path().join("dist/release");
    assert_eq!(names(&folder()), names(&other));
    for name in names(&other) {
        let same = fs::read(folder().join(&name)).unwrap() == fs::read(other.join(&name)).unwrap();
        assert!(same, "{name}");
    }
}

#[test]
fn what_is_downloaded_by_itself_has_its_checksum_beside_it() {
    let sums: Vec<_> = names(&folder()).into_iter().filter(|it| it.ends_with(".sha256")).collect();
    assert_eq!(sums.len(), 4);
    let sums: Vec<_> = sums.iter().map(String::as_str).collect();
    let mut check = Command::new("sha256sum");
    let said = done(check.arg("--check").args(&sums).current_dir(folder()));
    assert_eq!(said.stdout.matches(": OK\n").count(), 4, "{}", said.stdout);
}

#[test]
fn an_archive_holds_the_binary_that_is_released_by_itself() {
    let (name, place) = (init(), unpacked(&init()));
    let unpacked = place.path().join(&name);
    assert_eq!(names(&unpacked), ["LICENSE", "README.md", "completions", "man1", "pid1"]);
    tool("cmp", &[unpacked.join("pid1").to_str().unwrap(), &name], &folder());
    tool("test", &["-x", unpacked.join("pid1").to_str().unwrap()], &folder());
}

#[test]
fn the_digests_are_those_that_dist_prints() {
    let text = fs::read_to_string(folder().join("digests.json")).unwrap();
    let digests: serde_json::Value = serde_json::from_str(&text).unwrap();
    let printed = succeeds(dist(target())).stdout;
    let images = digests["images"].as_array().unwrap();
    let listed = images.iter().map(|image| {
        let (name, digest) = (image["name"].as_str().unwrap(), image["digest"].as_str().unwrap());
        assert_eq!(image["reference"], format!("ghcr.io/example/pid1@{digest}"));
        let manifest = image["platforms"][host()].as_str().unwrap().replace(':', "/");
        let blob = target().join("dist/oci").join(name).join("blobs").join(manifest);
        assert!(blob.is_file(), "{}", blob.display());
        format!("{name}@{digest}\n")
    });
    assert_eq!(listed.collect::<String>(), printed);
}

#[test]
fn the_notes_say_what_the_changelog_says() {
    let notes = fs::read_to_string(folder().join("NOTES.md")).unwrap();
    let changelog = Path::new(env!("CARGO_MANIFEST_DIR")).join("../CHANGELOG.md");
    let changelog = fs::read_to_string(changelog).unwrap();
    let heading = |name: &str| changelog.find(&format!("\n## [{name}]"));
    let section = heading(env!("CARGO_PKG_VERSION")).or_else(|| heading("Unreleased")).unwrap();
    let first = changelog[section..].lines().find(|line| line.starts_with("- ")).unwrap();
    assert!(notes.contains(first), "{notes}");
    assert!(notes.contains("ghcr.io/example/pid1@sha256:"), "{notes}");
}
