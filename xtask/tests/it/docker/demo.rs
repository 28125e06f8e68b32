//! What `cargo xtask demo --engine docker` shows: what the sandbox does, and nothing of it stays.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::built::{Done, done, xtask};
use crate::demo::{ENTRYPOINT, ORPHANS, SIGTERM, SLEEP, SURVIVING, demo, normalised};
use crate::push::fixture::comes_about;

/// How long a container may take to be there, and to go.
const PATIENCE: Duration = Duration::from_mins(1);

/// What differs between the two: how they are called, how long something is shown that does not
/// end, and how many processes were needed to get there.
fn without_differences(text: &str) -> String {
    let text = normalised(text).replace("cargo xtask run", "docker run --rm");
    let mut lines = Vec::new();
    for line in text.replace("after 2.5 s", "after 5 s").lines() {
        // A table's line without the process's number.
        let is_process = line.starts_with("   ") && !line.starts_with("    1     0");
        let line = line.get(5..).filter(|_| is_process).unwrap_or(line);
        // How often depends on how long docker took.
        if line != "Still alive!" || lines.last().map(String::as_str) != Some(line) {
            lines.push(line.to_string());
        }
    }
    lines.join("\n")
}

#[test]
fn docker_shows_what_the_sandbox_shows() {
    let done = demo(&["--engine", "docker"]);
    let all = [SIGTERM, SLEEP, ORPHANS, SURVIVING, ENTRYPOINT].concat();
    let expected = (Some(0), without_differences(&all));
    assert_eq!((done.code, without_differences(&done.stdout)), expected, "{}", done.stderr);
}

#[test]
fn a_docker_that_does_not_answer_is_named_with_the_remedy() {
    let mut command = xtask();
    command.args(["demo", "--engine", "docker"]).env("DOCKER_HOST", "unix:///nowhere");
    let done = done(&mut command);
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert!(done.stderr.contains("error: cannot use docker; start it, or say"), "{}", done.stderr);
}

/// The names of what docker has of the xtask with this id.
fn left(kind: &[&str], xtask: u32) -> String {
    let mut docker = Command::new("docker");
    docker.args(kind).arg("--format={{json .}}");
    let listed = Done::of(&docker.output().unwrap());
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    let mark = format!("pid1-smoke-{xtask}-");
    listed.stdout.lines().filter(|line| line.contains(&mark)).collect()
}

#[test]
fn ctrl_c_leaves_neither_container_nor_image() {
    let mut command = xtask();
    command.args(["demo", "--engine", "docker", "sigterm"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    assert!(comes_about(PATIENCE, || !left(&["ps"], id).is_empty()));
    assert!(!left(&["image", "ls"], id).is_empty());
    kill(Pid::from_raw(id.cast_signed()), Signal::SIGINT).unwrap();
    let done = Done::of(&child.wait_with_output().unwrap());
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{}", done.stderr);
    let last = done.stderr.lines().last();
    assert_eq!(last, Some("error: interrupted; what was half made has been removed"));
    assert_eq!(left(&["ps", "--all"], id), "");
    assert_eq!(left(&["image", "ls"], id), "");
}
