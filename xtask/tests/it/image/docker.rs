//! That docker builds what we build, and runs what we built.

use std::fs;
use std::process::Command;

use super::place::{Place, succeeds};
use super::{VERSION, dockerfile};
use crate::built;

#[test]
fn the_dockerfile_makes_the_image_that_we_make() {
    let place = Place::new();
    place.build(&["docker-testing", "--platform", "linux/arm/v7"]);
    let (archive, layout) = (place.path().join("by-docker.tar"), place.path().join("by-docker"));
    let mut build = Command::new("docker");
    build.args(["buildx", "build", "--quiet", "--provenance=false", "--platform=linux/arm/v7"]);
    build.args(dockerfile::build_arguments(&place, "docker-testing"));
    build.arg("--file").arg(dockerfile::path("docker-testing"));
    build.arg(format!("--output=type=oci,dest={}", archive.display()));
    succeeds(build.arg(place.context("docker-testing")));
    tar::Archive::new(fs::File::open(archive).unwrap()).unpack(&layout).unwrap();
    dockerfile::is_ours(&place, "docker-testing", &layout);
}

/// Under a name of the test's own: the daemon may be the user's.
#[test]
fn a_layout_can_be_loaded_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    built::copy(&built::folder().join("dist/oci/docker-testing"), &layout);
    let top = fs::read_to_string(layout.join("index.json")).unwrap();
    let repository = format!("pid1-test-{}", std::process::id());
    let renamed =
        top.replace("docker.io/library/pid1:", &format!("docker.io/library/{repository}:"));
    assert_ne!(renamed, top);
    fs::write(layout.join("index.json"), renamed).unwrap();
    let archive = folder.path().join("layout.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    builder.append_dir_all(".", &layout).unwrap();
    builder.finish().unwrap();

    let image = format!("{repository}:{VERSION}-docker-testing");
    let loaded = succeeds(Command::new("docker").arg("load").arg("--input").arg(&archive));
    assert_eq!(loaded, format!("Loaded image: {image}\n"));
    let run = ["run", "--rm", "--network=none", &image, "echo", "Hello"];
    let hello = Command::new("docker").args(run).output().unwrap();
    succeeds(Command::new("docker").args(["image", "rm", &image]));
    assert_eq!(String::from_utf8(hello.stdout).unwrap(), "Hello\n");
}
