//! pid1 as a crate: what `cargo publish` would upload installs by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::built::{Done, done, target};

/// How long the installed pid1 may take to say its version, in seconds, before it is killed.
const DEADLINE: &str = "20";

#[track_caller]
fn succeeds(command: &mut Command) -> Done {
    let done = done(command);
    assert_eq!(done.code, Some(0), "{command:?}: {}", done.stderr);
    done
}

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
    let mut install = Command::new("cargo");
    install.args(["install", "--quiet", "--locked", "--debug", "--path"]).arg(&source);
    install.arg("--root").arg(folder.path());
    // Compiled once for all runs: the lock file is the workspace's, and so are the dependencies.
    succeeds(install.arg("--target-dir").arg(target().join("package-test")));
    // An init is only ever run in a PID namespace of its own.
    let mut unshare = Command::new("timeout");
    unshare.args(["--signal=KILL", DEADLINE, "unshare", "--user", "--map-root-user", "--pid"]);
    unshare.args(["--fork", "--kill-child=KILL"]).arg(folder.path().join("bin/pid1"));
    let said = succeeds(unshare.arg("--version")).stdout;
    assert_eq!(said, concat!("pid1 ", env!("CARGO_PKG_VERSION"), "\n"));
}
