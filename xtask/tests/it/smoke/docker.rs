//! The same checks and more, by docker, and that nothing stays in it.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{GONE_WITHIN, fails, foreign, passes};
use crate::built::{self, done, host, xtask};
use crate::image::place::script;
use crate::push::fixture::comes_about;

/// How long docker waits before it kills what was stopped.
const PATIENCE: Duration = Duration::from_secs(10);

/// What docker prints.
#[track_caller]
fn docker(words: &[&str]) -> String {
    let done = done(Command::new("docker").args(words));
    assert_eq!(done.code, Some(0), "docker {words:?}: {}", done.stderr);
    done.stdout
}

/// The containers and images of the xtask with this number.
fn left(pid: u32) -> String {
    let name = format!("pid1-smoke-{pid}-");
    let containers = ["ps", "--all", "--format={{.Names}}", &format!("--filter=name={name}")];
    let images = ["images", "--format={{.Repository}}", &format!("--filter=reference={name}*")];
    docker(&containers) + &docker(&images)
}

#[test]
fn every_image_passes_and_nothing_of_it_stays() {
    let mut command = xtask();
    command.args(["smoke", "--engine=docker", "--platform", &host()]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let done = crate::built::Done::of(&child.wait_with_output().unwrap());
    passes(&done);
    let said = format!("smoke: docker-testing for {} by docker: ", host());
    assert!(done.stderr.contains(&said), "{}", done.stderr);
    assert_eq!(left(pid), "");
}

/// Of those that `cargo xtask test` has built.
#[test]
fn an_image_for_another_processor_passes() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    passes(&done(command.args(["smoke", "scratch", "--engine=docker", "--platform", foreign()])));
}

#[test]
fn an_interrupted_xtask_leaves_nothing_in_docker() {
    let mut command = xtask();
    command.args(["smoke", "scratch", "--engine=docker", "--platform", &host()]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    assert!(comes_about(GONE_WITHIN, || left(child.id()).contains("-scratch\n")));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(left(child.id()), "");
}

#[test]
fn a_ctrl_c_in_the_middle_of_a_load_leaves_nothing_in_docker() {
    // A docker that presses it when it has loaded, and takes its time to say so: who does not wait
    // for that does not know what was loaded.
    let folder = tempfile::tempdir().unwrap();
    let presses = "PATH=${PATH#*:}\n[ \"$1\" = load ] || exec docker \"$@\"\n\
                   docker \"$@\" && kill -INT $PPID && sleep 0.5";
    script(&folder.path().join("docker"), presses);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = xtask();
    command.args(["smoke", "docker-testing", "--engine=docker", "--platform", &host()]);
    let mut child = command.env("PATH", path).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(left(child.id()), "");
}

/// The example for users, which a service that ignores SIGTERM would hold up for ten seconds.
#[test]
fn three_services_of_a_compose_file_end_at_once() {
    let project = format!("pid1-compose-{}", std::process::id());
    let archive = built::archive_as("docker-testing", &project);
    docker(&["load", "--input", archive.path().to_str().unwrap()]);
    let image = format!("{project}:{}-docker-testing", env!("CARGO_PKG_VERSION"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    let text = include_str!("../../../../images/examples/compose.yaml");
    fs::write(&file, text.replace("ghcr.io/example/pid1:docker-testing", &image)).unwrap();
    let file = file.to_str().unwrap();
    let compose =
        |words: &[&str]| docker(&[&["compose", "--file", file, "-p", &project], words].concat());
    compose(&["up", "--detach", "--no-color"]);
    let start = Instant::now();
    compose(&["stop"]);
    let took = start.elapsed();
    let label = format!("--filter=label=com.docker.compose.project={project}");
    let ended = docker(&["ps", "--all", &label, "--format={{.Status}}"]);
    compose(&["down"]);
    docker(&["image", "rm", "--force", &image]);
    assert_eq!(ended.matches("Exited (143)").count(), 3, "{ended}");
    assert!(took < PATIENCE, "it took {took:?}");
}

#[test]
fn a_docker_that_does_not_answer_is_an_error_with_its_remedy() {
    let mut command = xtask();
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let done = done(command.args(["smoke", "scratch", "--engine=docker", "--platform", &host()]));
    fails(&done, &["error: cannot use docker; start it, or say in DOCKER_HOST where it is"]);
}
