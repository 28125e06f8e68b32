//! That podman builds from a generated Dockerfile what we build without it.

use std::fs;
use std::process::Command;

use super::dockerfile::PLATFORMS;
use super::place::{Place, fails, succeeds};
use super::{VERSION, dockerfile};
use crate::podman::Store;

/// Podman with a store of the test's own, in the plainest way there is.
fn podman(place: &Place) -> Command {
    let mut command = Command::new("podman");
    command.arg("--root").arg(place.path().join("podman/root"));
    command.arg("--runroot").arg(place.path().join("podman/run"));
    command.args(["--storage-driver", "vfs"]);
    command
}

#[test]
fn the_dockerfile_makes_the_image_that_we_make() {
    let place = Place::new();
    place.build(&["docker-testing", "--platform", "linux/arm/v7"]);
    let mut build = podman(&place);
    build.args(["build", "--isolation=chroot", "--layers=false", "--identity-label=false"]);
    build.args(["--platform=linux/arm/v7", "--tag", VERSION]);
    build.args(dockerfile::build_arguments(&place, "docker-testing"));
    build.arg("--file").arg(dockerfile::path("docker-testing"));
    succeeds(build.arg(place.context("docker-testing")));
    let layout = place.path().join("by-podman");
    succeeds(podman(&place).args(["push", VERSION, &format!("oci:{}", layout.display())]));
    dockerfile::is_ours(&place, "docker-testing", &layout);
}

#[test]
fn podman_as_the_builder_makes_the_same_layout() {
    let Some(store) = Store::new("podman_as_the_builder_makes_the_same_layout") else { return };
    let (ours, theirs) = (Place::new(), Place::new());
    ours.build(&[&["docker-testing"][..], &PLATFORMS].concat());
    let mut build = theirs.command();
    build.args(["docker-testing", "--builder", "podman"]).args(PLATFORMS);
    succeeds(build.envs(store.variables()));
    dockerfile::are_same(&ours, &theirs, "docker-testing");
    let images = ["images", "--all", "--quiet"];
    assert_eq!(succeeds(Command::new("podman").args(images).envs(store.variables())), "");
}

#[test]
fn a_podman_that_fails_leaves_nothing_behind() {
    let place = Place::new();
    let mut build = place.command();
    build.args(["static", "--platform", "linux/amd64", "--builder", "podman"]);
    let storage = place.path().join("storage.conf");
    let folder = place.path().join("store");
    let text = format!("driver = 'no-such'\nrunroot = {folder:?}\ngraphroot = {folder:?}\n");
    fs::write(&storage, format!("[storage]\n{text}")).unwrap();
    build.env("CONTAINERS_STORAGE_CONF", storage);
    dockerfile::leaves_nothing_behind(&place, &mut build, "cannot build `static` with podman");
}

#[test]
fn a_podman_that_is_not_there_is_asked_for() {
    let place = Place::new();
    let error = fails(place.command().arg("--builder=podman").env("PATH", place.path()));
    let expected = "cannot build with podman; install it (on Debian 12 `.ci/install` does): cannot \
                    run `podman`: No such file or directory (os error 2)";
    assert_eq!(error, expected);
}

#[test]
fn podman_leaves_what_was_there_when_interrupted() {
    let Some(store) = Store::new("podman_leaves_what_was_there_when_interrupted") else { return };
    let place = Place::new();
    let mut command = place.command();
    command.args(["static", "--builder", "podman"]).envs(store.variables());
    dockerfile::leaves_what_was_there_when_interrupted(&place, &mut command);
}

#[test]
fn what_podman_built_passes_its_smoke_tests() {
    let Some(store) = Store::new("what_podman_built_passes_its_smoke_tests") else { return };
    dockerfile::can_be_smoke_tested("podman", &store.variables());
}
