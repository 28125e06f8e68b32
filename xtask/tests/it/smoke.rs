//! The smoke tests and their sandbox: what they find, what they refuse, and that nothing of them
//! is left over.

mod docker;
mod podman;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chown, geteuid};

use crate::built::{Done, copied, copy, done, host, xtask, xtask_in};

/// How long what was killed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// The highest deadline below, many times over.
const LONG: Duration = Duration::from_secs(20);

fn smoke(folder: &Path, image: &str) -> Done {
    done(xtask_in(folder).args(["smoke", image, "--platform", &host()]))
}

#[track_caller]
fn passes(done: &Done) {
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains(" passed"), "{}", done.stderr);
}

#[track_caller]
fn fails(done: &Done, expected: &[&str]) {
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for expected in expected {
        assert!(done.stderr.contains(expected), "no `{expected}` in: {}", done.stderr);
    }
}

/// A platform that this machine runs through an emulator.
fn foreign() -> &'static str {
    if host() == "linux/arm64" { "linux/amd64" } else { "linux/arm64" }
}

#[test]
fn every_image_passes() {
    passes(&done(xtask().args(["smoke", "--platform", &host()])));
}

#[test]
fn every_image_passes_for_an_ordinary_user() {
    let folder = copied();
    let mut command = xtask_in(folder.path());
    if geteuid().is_root() {
        // Where the sandbox unpacks, and where what passed is noted down.
        for folder in [folder.path(), &folder.path().join("dist")] {
            chown(folder, Some(65534.into()), Some(65534.into())).unwrap();
        }
        command.uid(65534).gid(65534);
    }
    passes(&done(command.args(["smoke", "--platform", &host()])));
}

#[test]
fn what_is_left_out_is_said_and_not_passed() {
    let left_out = format!("--no-smoke={}", host());
    let done =
        done(xtask().args(["--quiet", "smoke", "scratch", "--platform", &host(), &left_out]));
    let expected = format!("smoke: scratch for {0}: not run, --no-smoke {0} was given\n", host());
    assert_eq!((done.code, done.stderr), (Some(0), expected));
}

#[test]
fn a_program_that_the_definition_asks_for_and_the_image_lacks_is_named() {
    let folder = copied();
    let layouts = folder.path().join("dist/oci");
    fs::remove_dir_all(layouts.join("docker-testing")).unwrap();
    copy(&layouts.join("static"), &layouts.join("docker-testing"));
    fails(
        &smoke(folder.path(), "docker-testing"),
        &[
            "smoke tests failed:",
            &format!("docker-testing for {}: sigterm can handle SIGTERM", host()),
            "$ run docker-testing sigterm install-handler",
            "expected exit code 42",
            "got exit code 127",
            "pid1: cannot run `sigterm`",
        ],
    );
}

#[test]
fn a_tampered_blob_is_found() {
    let folder = copied();
    let blobs = folder.path().join("dist/oci/static/blobs/sha256");
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let paths = fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().path());
    let largest = paths.max_by_key(|path| size(path)).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let name = largest.file_name().unwrap().to_str().unwrap();
    fails(&smoke(folder.path(), "static"), &[name, "not what the layout says"]);
}

#[test]
fn an_image_that_was_not_built_says_what_to_run() {
    let folder = tempfile::tempdir().unwrap();
    fails(&smoke(folder.path(), "static"), &["run `cargo xtask image` first"]);
}

/// In a namespace of its own, so that nobody else has to live with it.
#[test]
fn where_namespaces_are_forbidden_the_remedy_is_named() {
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", forbid, "sh"]);
    let inner = xtask();
    command.arg(inner.get_program()).args(["run", "scratch", "docker-testing", "echo"]);
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    fails(&done(&mut command), &["ENOSPC", "; run `sudo sysctl user.max_user_namespaces=10000`"]);
}

#[test]
fn a_program_that_hangs_is_killed_at_its_deadline() {
    let start = Instant::now();
    let hang = ["docker-testing", "docker-testing", "probe", "hang"];
    let done = done(xtask().args(["run", "--deadline", "1"]).args(hang));
    assert_eq!((done.code, done.stdout.as_str()), (Some(124), "ready\n"), "{}", done.stderr);
    assert!(start.elapsed() < LONG);
}

/// An xtask on `folder`, with a sandbox in which something runs that would not end by itself, and
/// that can be told from everything else by its arguments.
fn hanging(folder: &Path, mark: &str) -> Child {
    let hang = ["docker-testing", "docker-testing", "probe", "wait", mark];
    let mut command = xtask_in(folder);
    command.arg("run").args(hang).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    assert!(is_running(mark));
    child
}

/// Whether a process has these arguments.
fn is_running(mark: &str) -> bool {
    let arguments = format!("\0probe\0wait\0{mark}\0");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).ends_with(&arguments))
}

#[track_caller]
fn goes_away_after(folder: &Path, signal: Signal, mark: &str) {
    let mut child = hanging(folder, mark);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while is_running(mark) {
        assert!(start.elapsed() < GONE_WITHIN, "the sandbox outlives the xtask");
        std::thread::yield_now();
    }
}

/// How many unpacked images lie about.
fn unpacked(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries.filter(|it| it.file_name().to_string_lossy().starts_with("smoke-")).count()
}

#[test]
fn an_interrupted_xtask_leaves_nothing_behind() {
    let folder = copied();
    goes_away_after(folder.path(), Signal::SIGINT, "50");
    assert_eq!(unpacked(folder.path()), 0);
}

#[test]
fn a_killed_xtask_leaves_no_sandbox_behind_and_the_next_one_tidies_up() {
    let folder = copied();
    goes_away_after(folder.path(), Signal::SIGKILL, "51");
    assert_eq!(unpacked(folder.path()), 1);
    passes(&smoke(folder.path(), "scratch"));
    assert_eq!(unpacked(folder.path()), 0);
}
