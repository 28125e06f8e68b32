//! That podman builds from a generated Dockerfile what we build without it.

use std::process::Command;

use super::place::{Place, succeeds};
use super::{VERSION, dockerfile};

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
