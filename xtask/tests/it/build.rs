//! `cargo xtask build`: what it installs, what it leaves alone, and how it fails.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::built::{self, done, host, succeeds};

/// How long what we start may take to come as far as we wait for, and to end.
const DEADLINE: Duration = Duration::from_mins(1);

/// How often we look.
const POLL: Duration = Duration::from_millis(20);

/// `cargo xtask build` for this machine's platform, into a target folder of its own that shares
/// what cargo has compiled with the real one.
fn build(target: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["build", "--platform", &host()]).env("CARGO_TARGET_DIR", target.path());
    command
}

fn target() -> TempDir {
    // Whoever comes first compiles; the others find it done.
    built::folder();
    let target = tempfile::tempdir().unwrap();
    symlink(built::target().join("cross"), target.path().join("cross")).unwrap();
    target
}

fn installed(target: &TempDir, package: &str) -> PathBuf {
    target.path().join("dist/bin").join(host().replace('/', "-")).join(package)
}

#[test]
fn what_is_built_is_printed_with_its_size() {
    let target = target();
    let done = succeeds(&mut build(&target));
    let line = |package| {
        let path = installed(&target, package);
        let size = fs::metadata(&path).unwrap().len();
        format!("{} {size}\n", path.display())
    };
    assert_eq!(done.stdout, line("pid1") + &line("docker-testing"));
}

#[test]
fn what_is_there_is_not_built_again() {
    let target = target();
    succeeds(&mut build(&target));
    let before = fs::metadata(installed(&target, "pid1")).unwrap().modified().unwrap();
    let done = succeeds(&mut build(&target));
    assert!(done.stderr.contains("build: nothing had to be rebuilt\n"), "{}", done.stderr);
    let after = fs::metadata(installed(&target, "pid1")).unwrap().modified().unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_damaged_binary_is_put_right() {
    let target = target();
    succeeds(&mut build(&target));
    let path = installed(&target, "pid1");
    let right = fs::read(&path).unwrap();
    fs::write(&path, "damaged").unwrap();
    let done = succeeds(&mut build(&target));
    assert!(!done.stderr.contains("nothing had to be rebuilt"), "{}", done.stderr);
    assert!(fs::read(&path).unwrap() == right);
}

#[test]
fn the_users_own_flags_do_not_reach_the_binaries() {
    let target = target();
    succeeds(&mut build(&target));
    let mut command = build(&target);
    command.env("RUSTFLAGS", "-Copt-level=0").env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2");
    command.env("CARGO_PROFILE_SMALL_OPT_LEVEL", "0").env("CARGO_BUILD_TARGET", "none-such");
    command.env("RUSTC_WRAPPER", "/bin/false").env("RUSTC", "/bin/false");
    let done = succeeds(&mut command);
    assert!(done.stderr.contains("build: nothing had to be rebuilt\n"), "{}", done.stderr);
}

/// A `PATH` of just these programs.
fn only(programs: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = env::var_os("PATH").unwrap();
    for program in programs {
        let mut found = env::split_paths(&path).map(|it| it.join(program));
        let found = found.find(|it| it.is_file()).unwrap();
        symlink(found, folder.path().join(program)).unwrap();
    }
    folder
}

#[track_caller]
fn fails_without(programs: &[&str], expected: &str) {
    let target = tempfile::tempdir().unwrap();
    let path = only(programs);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["--quiet", "build", "--platform", "linux/s390x"]);
    command.env("CARGO_TARGET_DIR", target.path()).env("PATH", path.path());
    let done = done(&mut command);
    assert_eq!((done.code, done.stderr.as_str()), (Some(1), expected));
    assert_eq!(done.stdout, "");
    let tools = target.path().join("tools");
    let left = fs::read_dir(tools).map_or(0, Iterator::count);
    assert_eq!(left, 0, "something half made is left");
}

#[test]
fn without_python_and_zig_the_remedy_is_named() {
    fails_without(
        &["cargo", "rustc", "rustup"],
        "error: cannot fetch zig 0.17.1; put that version into PATH, or see that `python3 -m \
         pip` works here: cannot run `python3`: No such file or directory (os error 2)\n",
    );
}

#[test]
fn without_a_toolchain_the_build_says_so() {
    fails_without(
        &[],
        "error: cannot find the toolchain of `rust-toolchain.toml`: cannot run `rustc`: No such \
         file or directory (os error 2)\n",
    );
}

#[test]
fn ctrl_c_ends_the_compilers_and_leaves_nothing_half_made() {
    let target = tempfile::tempdir().unwrap();
    let mut command = build(&target);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("-Zbuild-std") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    until("a compiler runs", || !mentioning(target.path()).is_empty());
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    until("the xtask has ended", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    until("no compiler runs", || mentioning(target.path()).is_empty());
    assert!(!target.path().join("dist").exists());
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::sleep(POLL);
    }
}

/// The processes that have `folder` in their command line.
fn mentioning(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let mentions = |process: &PathBuf| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(folder)
    };
    processes.filter(mentions).collect()
}

/// In bytes; on the other platforms twice as much.
const MOST_ON_AMD64: u64 = 60_000;

#[test]
fn on_every_platform_pid1_is_small() {
    // As far as they were built: `cargo xtask test` builds all nine.
    for platform in fs::read_dir(built::target().join("dist/bin")).unwrap() {
        let platform = platform.unwrap();
        let size = fs::metadata(platform.path().join("pid1")).unwrap().len();
        let most = MOST_ON_AMD64 * if platform.file_name() == "linux-amd64" { 1 } else { 2 };
        assert!(size <= most, "{}: {size}", platform.path().display());
    }
}
