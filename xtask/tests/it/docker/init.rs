//! `docker run --init` with our binary in the place of docker's.

use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::dockerfile;
use crate::push::fixture::comes_about;

/// Docker's patience is 10 s; who ends at once is told from who is killed by this.
const AT_ONCE: Duration = Duration::from_secs(3);

/// As `docker info` shows it: a point would end it.
const REVISION: &str = concat!(
    "pid1-",
    env!("CARGO_PKG_VERSION_MAJOR"),
    "-",
    env!("CARGO_PKG_VERSION_MINOR"),
    "-",
    env!("CARGO_PKG_VERSION_PATCH"),
);

#[test]
fn docker_info_shows_our_version() {
    let Some(docker) = Daemon::get("docker_info_shows_our_version") else { return };
    let info = docker.must(&["info"]);
    let line = format!("\n init version: {REVISION}\n");
    assert!(info.contains(&line), "{info}");
}

#[test]
fn ours_is_the_first_process() {
    let Some(docker) = Daemon::get("ours_is_the_first_process") else { return };
    let image = docker.load();
    let run = ["run", "--rm", "--init", "--network=none", "--entrypoint"];
    let ps = docker.must(&[&run[..], &["ps", &image, "-o", "args", "1"]].concat());
    assert_eq!(ps, "/sbin/docker-init -- ps -o args 1\n");
    let version = docker.must(&[&run[..], &["/sbin/docker-init", &image, "--version"]].concat());
    let ours = format!("tini version {}_pid1 - git.{REVISION}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version, ours);
}

#[test]
fn a_program_dies_of_its_signal_as_it_does_outside() {
    let Some(docker) = Daemon::get("a_program_dies_of_its_signal_as_it_does_outside") else {
        return;
    };
    let image = docker.load();
    let run = ["run", "--rm", "--network=none", "--entrypoint", "sigterm"];
    let with_init = docker.run(&[&run[..], &["--init", &image]].concat());
    assert_eq!((with_init.code, with_init.stdout.as_str()), (Some(143), ""));
    // Without an init it cannot: what it says then shows it.
    let detached = docker.must(&[&run[..], &["--detach", &image]].concat());
    let alive = comes_about(AT_ONCE, || {
        docker.must(&["logs", detached.trim()]).starts_with("Still alive!")
    });
    docker.must(&["rm", "--force", detached.trim()]);
    assert!(alive);
}

#[test]
fn orphans_are_reaped() {
    let Some(docker) = Daemon::get("orphans_are_reaped") else { return };
    let image = docker.load();
    let run = ["run", "--rm", "--network=none", "--entrypoint", "orphans"];
    let zombies = |output: &str| output.lines().filter(|line| line.contains(" Z ")).count();
    let with_init = docker.must(&[&run[..], &["--init", &image]].concat());
    assert_eq!(zombies(&with_init), 0, "{with_init}");
    let without = docker.must(&[&run[..], &[&image]].concat());
    assert_eq!(zombies(&without), 4, "{without}");
}

#[test]
fn stop_ends_a_program_at_once_with_143() {
    let Some(docker) = Daemon::get("stop_ends_a_program_at_once_with_143") else { return };
    let image = docker.load();
    let run = ["run", "--detach", "--init", "--network=none", "--entrypoint", "sleep"];
    let container = docker.must(&[&run[..], &[&image, "1000"]].concat());
    let container = container.trim();
    let start = Instant::now();
    docker.must(&["stop", container]);
    let took = start.elapsed();
    assert!(took < AT_ONCE, "it took {took:?}");
    let code = docker.must(&["inspect", "--format={{.State.ExitCode}}", container]);
    docker.must(&["rm", container]);
    assert_eq!(code, "143\n");
}

#[test]
fn what_came_by_exec_gets_sigterm_and_time() {
    let Some(docker) = Daemon::get("what_came_by_exec_gets_sigterm_and_time") else { return };
    dockerfile::busybox(&docker, "busybox");
    let run = ["run", "--detach", "--rm", "--init", "--network=none"];
    let container = docker.must(&[&run[..], &["busybox", "sleep", "1000"]].concat());
    let script = "trap 'sleep 0.5; echo tidied up; exit 7' TERM
        echo ready >&2; while :; do sleep 1000 & wait; done";
    let visitor = docker.start_until_ready(&["exec", container.trim(), "sh", "-c", script]);
    docker.must(&["stop", container.trim()]);
    let visitor = visitor.finish();
    assert_eq!((visitor.code, visitor.stdout.as_str()), (Some(7), "tidied up\n"));
}
