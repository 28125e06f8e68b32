//! pid1 as a crate: what `cargo publish` would upload installs by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::built::{done, succeeds, target};
use crate::docker_registry::reproduce::commit;
use crate::push::fixture::tool;

/// How long the installed pid1 may take to say its version, in seconds, before it is killed.
const DEADLINE: &str = "20";

/// The packed crate, unpacked.
fn unpacked(folder: &Path) -> PathBuf {
    let build = target().join("package-test");
    let mut package = Command::new("cargo");
    // The test must run in a tree that is being worked on, too.
    package.args(["package", "--package=pid1", "--locked", "--no-verify", "--allow-dirty"]);
    succeeds(package.arg("--target-dir").arg(&build));
    let name = concat!("pid1-", env!("CARGO_PKG_VERSION"));
    let archive = build.join("package").join(format!("{name}.crate"));
    succeeds(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(folder));
    folder.join(name)
}

#[test]
fn the_packed_crate_installs_outside_the_workspace() {
    let folder = tempfile::tempdir().unwrap();
    let source = unpacked(folder.path());
    for file in ["README.md", "LICENSE", "Cargo.lock"] {
        assert!(source.join(file).is_file(), "{file}");
    }
    installs(&source, folder.path());
}

#[test]
fn a_clone_installs_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    installs(&Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("pid1"), folder.path());
}

/// `cargo install --path` of `source` puts pid1 below `root`.
#[track_caller]
fn installs(source: &Path, root: &Path) {
    let mut install = Command::new("cargo");
    install.args(["install", "--quiet", "--locked", "--debug", "--path"]).arg(source);
    // Compiled once for all runs: the lock file is the workspace's, and so are the dependencies.
    install.arg("--target-dir").arg(target().join("package-test"));
    succeeds(install.arg("--root").arg(root));
    // An init is only ever run in a PID namespace of its own.
    let mut unshare = Command::new("timeout");
    unshare.args(["--signal=KILL", DEADLINE, "unshare", "--user", "--map-root-user", "--pid"]);
    unshare.args(["--fork", "--kill-child=KILL"]).arg(root.join("bin/pid1"));
    let said = succeeds(unshare.arg("--version")).stdout;
    assert_eq!(said, concat!("pid1 ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_new_version_is_locked_by_what_contributing_says() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    commit(&source);
    let cargo = |words: &[&str]| {
        let mut command = Command::new("cargo");
        done(command.args(words).arg("--offline").current_dir(&source))
    };
    let resolves = || cargo(&["tree", "--locked", "--package=pid1"]).code == Some(0);
    assert!(resolves());
    let manifest = fs::read_to_string(source.join("Cargo.toml")).unwrap();
    let number = concat!("\nversion = \"", env!("CARGO_PKG_VERSION"), "\"\n");
    let (before, after) = manifest.split_once(number).unwrap();
    let changed = format!("{before}\nversion = \"99.0.0\"\n{after}");
    fs::write(source.join("Cargo.toml"), changed).unwrap();
    assert!(!resolves());
    let contributing = fs::read_to_string(source.join(".github/CONTRIBUTING.md")).unwrap();
    let line = contributing.lines().find(|it| it.starts_with("cargo update ")).unwrap();
    let words: Vec<_> = line.split_whitespace().skip(1).collect();
    assert_eq!(cargo(&words).code, Some(0));
    assert!(resolves());
    // And of no other package than ours.
    let changed = tool("git", &["diff", "--stat", "Cargo.lock"], &source);
    assert!(changed.contains("3 insertions(+), 3 deletions(-)"), "{changed}");
}
