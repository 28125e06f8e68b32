//! Section 6: what it costs, on x86-64. These hold for the binary that images carry, which is the
//! one in `$PID1_BINARY`.

use std::env;
use std::fs;
use std::io::{Write, stderr};
use std::process::Command;

use crate::container::{Container, sh};
use crate::limits::left_out;

const MOST_BYTES: u64 = 60_000;
const MOST_RESIDENT_KB: u64 = 72;
const MOST_PRIVATE_DIRTY_KB: u64 = 12;
const MOST_SYSTEM_CALLS: usize = 10;

/// Whether the binary is one to measure.
fn is_measured(test: &str) -> bool {
    if left_out(test) {
        return false;
    }
    let measured = cfg!(target_arch = "x86_64") && env::var_os("PID1_BINARY").is_some();
    if !measured {
        let _ = writeln!(
            stderr(),
            "NOT RUN: {test}: needs the x86-64 binary of images in $PID1_BINARY"
        );
    }
    measured
}

#[test]
fn binary_is_small() {
    if !is_measured("binary_is_small") {
        return;
    }
    let size = fs::metadata(env::var_os("PID1_BINARY").unwrap()).unwrap().len();
    assert!(size <= MOST_BYTES, "{size}");
}

/// Resident memory and what is our own of it, in KB, while idle over `sleep`.
fn memory() -> (u64, u64) {
    let mut running = Container::init(&sh("echo ready; exec sleep 1000")).start();
    running.expect("ready");
    running.wait_until_idle();
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", running.init)).unwrap();
    let field = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // Not `Private_Dirty`: that counts the file's own pages until the disk has them.
    let measured = (field("Rss:"), field("Anonymous:"));
    running.destroy();
    measured
}

#[test]
fn memory_is_small() {
    if !is_measured("memory_is_small") {
        return;
    }
    // Where the kernel puts the stack is random, and decides over one page.
    let mut measured: Vec<_> = (0..101).map(|_| memory()).collect();
    measured.sort_unstable();
    let (resident, dirty) = measured[measured.len() / 2];
    assert!(resident <= MOST_RESIDENT_KB && dirty <= MOST_PRIVATE_DIRTY_KB, "{measured:?}");
}

#[test]
fn few_system_calls_before_the_child_runs() {
    let test = "few_system_calls_before_the_child_runs";
    if !is_measured(test) {
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        let _ = writeln!(stderr(), "NOT RUN: {test}: needs strace");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let binary = env::var("PID1_BINARY").unwrap();
    // The tracer has to be outside of what it traces: init would end it.
    let tracer = ["strace", "-f", "-o", log.to_str().unwrap()];
    let unshared = ["unshare", "--pid", "--fork", &binary, "/bin/true"];
    Container::bare(&[&tracer[..], &unshared].concat()).run_to(0);
    let log = fs::read_to_string(log).unwrap();
    let calls: Vec<_> = log.lines().filter(|line| !line.contains(" resumed>")).collect();
    let is_start = |line: &&str, program: &str| line.contains(&format!("execve(\"{program}\""));
    let first = calls.iter().position(|line| is_start(line, &binary)).unwrap();
    let last = calls.iter().position(|line| is_start(line, "/bin/true")).unwrap();
    let process = |line: &str| line.split(' ').next().map(str::to_owned);
    let (init, child) = (process(calls[first]), process(calls[last]));
    // What init does after the clone, it does beside the child; and `unshare` waits beside both.
    let mut has_cloned = false;
    let mut counted = calls[first + 1..last].to_vec();
    counted.retain(|line| {
        let of_init = process(line) == init && !has_cloned;
        has_cloned |= of_init && line.contains(" clone(");
        of_init || process(line) == child
    });
    assert!((5..=MOST_SYSTEM_CALLS).contains(&counted.len()), "{counted:#?}");
}
