//! That docker builds what we build, and runs what we built.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use super::dockerfile::PLATFORMS;
use super::place::{Place, fails, succeeds};
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

#[test]
fn docker_as_the_builder_makes_the_same_layout_each_time() {
    let (ours, theirs, again) = (Place::new(), Place::new(), Place::new());
    ours.build(&[&["docker-testing"][..], &PLATFORMS].concat());
    let by_docker = [&["docker-testing", "--builder", "docker"][..], &PLATFORMS].concat();
    let said = theirs.build(&by_docker);
    dockerfile::are_same(&ours, &theirs, "docker-testing");
    // Its files are younger, and it has no cache to hide that.
    assert_eq!(again.build(&by_docker), said);
}

/// The one that docker itself has goes by the name of its context.
#[test]
fn a_builder_is_chosen_by_its_name() {
    let place = Place::new();
    let scratch = ["scratch", "--platform", "linux/amd64", "--builder"];
    place.build(&[&scratch[..], &["docker:default"]].concat());
    let error = fails(place.command().args(["static", "--builder", "docker:no-such"]));
    let expected = "cannot build with docker:no-such; `docker buildx ls` lists the builders, \
                    `docker buildx create --name no-such` makes one: `docker` failed: exit \
                    status: 1: ERROR: no builder \"no-such\" found";
    assert_eq!(error, expected);
}

/// As one elsewhere is: a context that says how it is reached, here the daemon of this machine.
#[test]
fn a_builder_elsewhere_makes_the_same_layout() {
    let (ours, theirs) = (Place::new(), Place::new());
    ours.build(&[&["docker-testing"][..], &PLATFORMS].concat());
    let here = std::env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".to_string());
    let home = tempfile::tempdir().unwrap();
    let mut create = Command::new("docker");
    create.args(["context", "create", "elsewhere", "--docker", &format!("host={here}")]);
    succeeds(create.env("DOCKER_CONFIG", home.path()));
    let mut build = theirs.command();
    build.args(["docker-testing", "--builder", "docker:elsewhere"]).args(PLATFORMS);
    // Only the context knows where it is.
    build.env("DOCKER_CONFIG", home.path()).env_remove("DOCKER_HOST");
    succeeds(&mut build);
    dockerfile::are_same(&ours, &theirs, "docker-testing");
}

#[test]
fn a_docker_that_is_not_there_is_asked_for() {
    let place = Place::new();
    let error = fails(place.command().arg("--builder=docker").env("DOCKER_HOST", "unix:///none"));
    let expected = "cannot build with docker; install docker and buildx and start it, or say in \
                    DOCKER_HOST where it is: Cannot connect to the Docker daemon at unix:///none. \
                    Is the docker daemon running?";
    assert_eq!(error, expected);
}

#[test]
fn a_context_that_is_older_than_the_image_makes_no_difference() {
    let place = Place::new();
    let build = ["scratch", "--platform", "linux/amd64", "--builder", "docker"];
    let said = place.build(&build);
    let init = fs::File::open(place.context("scratch").join("linux/amd64/pid1")).unwrap();
    init.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(place.build(&build), said);
}

#[test]
fn docker_leaves_what_was_there_when_interrupted() {
    let place = Place::new();
    let mut command = place.command();
    command.args(["static", "--builder", "docker"]);
    dockerfile::leaves_what_was_there_when_interrupted(&place, &mut command);
}

#[test]
fn what_docker_built_passes_its_smoke_tests() {
    dockerfile::can_be_smoke_tested("docker", &[]);
}

/// Under a name of the test's own: the daemon may be the user's.
#[test]
fn a_layout_can_be_loaded_and_run() {
    let repository = format!("pid1-test-{}", std::process::id());
    let archive = built::archive_as("docker-testing", &repository);
    let image = format!("{repository}:{VERSION}-docker-testing");
    let loaded = succeeds(Command::new("docker").arg("load").arg("--input").arg(archive.path()));
    assert_eq!(loaded, format!("Loaded image: {image}\n"));
    let run = ["run", "--rm", "--network=none", &image, "echo", "Hello"];
    let hello = Command::new("docker").args(run).output().unwrap();
    succeeds(Command::new("docker").args(["image", "rm", &image]));
    assert_eq!(String::from_utf8(hello.stdout).unwrap(), "Hello\n");
}
