//! Section 4: ending.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::libc;
use nix::unistd::{ForkResult, fork, setuid};

use crate::container::{Container, sh, with};
use crate::limits::left_out;

#[test]
fn exit_code_is_the_childs() {
    for code in [0, 1, 42, 125, 126, 127, 128, 255] {
        Container::init(&sh(&format!("exit {code}"))).run_to(code);
    }
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    for signal in [1, 2, 6, 9, 11, 15, 31] {
        Container::init(&sh(&format!("ulimit -c 0; kill -{signal} $$"))).run_to(128 + signal);
    }
}

#[test]
fn death_by_a_real_time_signal_is_128_and_its_number() {
    if left_out("death_by_a_real_time_signal_is_128_and_its_number") {
        return;
    }
    for signal in [34, 50, 64] {
        Container::init(&sh(&format!("kill -{signal} $$"))).run_to(128 + signal);
    }
}

#[test]
fn terminated_child_is_143() {
    let mut running = Container::init(&sh("echo ready; exec sleep 1000")).start();
    running.expect("ready");
    running.signal(libc::SIGTERM);
    assert_eq!(running.finish().status.code(), Some(143));
}

/// A process that says what it gets, in a session of its own and still there when its parent ends.
const REMAINING: &str = "
    setsid sh -c 'trap \"echo got TERM; exit\" TERM; echo ready; while :; do sleep 1000 & wait; done' &
    read go; exit 3";

#[test]
fn what_remains_gets_sigterm_and_time() {
    let mut running = Container::init(&sh(REMAINING)).stdin(Stdio::piped()).start();
    running.expect("ready");
    drop(running.stdin.take());
    running.expect("got TERM");
    assert_eq!(running.finish().status.code(), Some(3));
}

#[test]
fn without_init_what_remains_is_killed_without_a_word() {
    let mut running = Container::bare(&sh(REMAINING)).stdin(Stdio::piped()).start();
    running.expect("ready");
    drop(running.stdin.take());
    running.expect("");
    assert_eq!(running.finish().status.code(), Some(3));
}

/// A process that has stopped when its parent ends.
const STOPPED: &str = "
        sh -c 'trap \"echo got TERM; exit\" TERM; echo ready; kill -STOP $$; while :; do sleep 1000 & wait; done' &
        while ! grep -q 'State:.T' /proc/$!/status; do :; done; exit 3";

#[test]
fn stopped_processes_are_continued() {
    let mut running = Container::init(&sh(STOPPED)).start();
    running.expect("ready");
    running.expect("got TERM");
    assert_eq!(running.finish().status.code(), Some(3));
}

#[test]
fn without_init_stopped_processes_are_killed_without_a_word() {
    let mut running = Container::bare(&sh(STOPPED)).start();
    running.expect("ready");
    running.expect("");
    assert_eq!(running.finish().status.code(), Some(3));
}

#[test]
fn we_leave_as_soon_as_nothing_is_left() {
    let start = Instant::now();
    Container::init(&with(&["-t", "50"], "sleep 1000 & sleep 1000 & exit 3")).run_to(3);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Ignores SIGTERM, and says when it does.
const STUBBORN: &str = "(trap '' TERM; echo ready; exec sleep 1000) & read go; exit 3";

#[test]
fn what_does_not_end_in_time_is_killed() {
    let container = Container::init(&with(&["-v", "-t", "0.3"], STUBBORN));
    let mut running = container.stdin(Stdio::piped()).start();
    running.expect("ready");
    let start = Instant::now();
    drop(running.stdin.take());
    let outcome = running.finish();
    assert_eq!(outcome.status.code(), Some(3));
    assert!(outcome.stderr.contains("ended code=3 remaining=1 killed=1"), "{}", outcome.stderr);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn a_proc_of_another_namespace_misleads_nobody() {
    // What is under the container's own /proc: the one outside, with other process ids.
    let uncover = || nix::mount::umount2(c"/proc", nix::mount::MntFlags::MNT_DETACH);
    let container = Container::init(&with(&["-v", "-t", "0.3"], STUBBORN));
    let container = container.setup(move || uncover().map_err(Into::into)).stdin(Stdio::piped());
    let mut running = container.start();
    running.expect("ready");
    drop(running.stdin.take());
    let outcome = running.finish();
    assert_eq!(outcome.status.code(), Some(3));
    let last = outcome.stderr.lines().last();
    assert_eq!(last, Some("pid1: ended code=3 remaining=1 killed=1"));
}

#[test]
fn default_grace_is_5_seconds() {
    let mut running = Container::init(&sh(STUBBORN)).stdin(Stdio::piped()).start();
    running.expect("ready");
    let start = Instant::now();
    drop(running.stdin.take());
    running.finish();
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
}

#[test]
fn no_time_at_all_kills_at_once() {
    let mut running = Container::init(&with(&["-t0"], STUBBORN)).stdin(Stdio::piped()).start();
    running.expect("ready");
    let start = Instant::now();
    drop(running.stdin.take());
    running.finish();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_full_standard_error_does_not_hold_up_the_end() {
    let (reader, writer) = std::io::pipe().unwrap();
    // The child fills it, being one that gives up where it would have to wait. The shell's own is
    // another one while it runs `dd`.
    let script = "
        fill() { dd if=/dev/zero bs=$1 count=1000 oflag=nonblock of=/proc/1/fd/2 2>/dev/null; }
        fill 4096; fill 1; fill 1 && exit 4; exit 3";
    let container = Container::init(&with(&["-vvv"], script)).stderr(writer);
    container.run_to(3);
    drop(reader);
}

#[test]
fn verbose_says_how_it_ended() {
    let outcome = Container::init(&with(&["-v"], "exit 3")).run_to(3);
    let last = outcome.stderr.lines().last();
    assert_eq!(last, Some("pid1: ended code=3 remaining=0 killed=0"));
    let outcome = Container::init(&with(&["-v"], "kill -KILL $$")).run_to(137);
    let last = outcome.stderr.lines().last();
    assert_eq!(last, Some("pid1: ended code=137 signal=SIGKILL remaining=0 killed=0"));
}

#[test]
fn json_has_the_same_fields() {
    let outcome = Container::init(&with(&["-v", "--log=json"], "kill -TERM $$")).run_to(143);
    let last = outcome.stderr.lines().last();
    let line = "{\"program\":\"pid1\",\"event\":\"ended\",\"code\":143,\"signal\":\"SIGTERM\",\
        \"remaining\":0,\"killed\":0}";
    assert_eq!(last, Some(line));
}

#[test]
fn nothing_is_said_without_verbose() {
    let outcome = Container::init(&sh("sleep 1000 & exit 3")).run_to(3);
    assert_eq!(outcome.stderr, "");
}

/// Leaves a process of root's in the container and makes init an ordinary user.
fn beside_a_process_of_roots(container: Container) -> Container {
    container.setup(|| {
        // SAFETY: between fork and exec; the child does nothing but system calls.
        if let ForkResult::Child = unsafe { fork() }? {
            // SAFETY: closes what only the other process uses, and sleeps.
            unsafe {
                libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
                loop {
                    libc::pause();
                }
            }
        }
        setuid(1234.into()).map_err(Into::into)
    })
}

#[test]
fn init_does_not_wait_for_what_it_may_not_signal() {
    if left_out("init_does_not_wait_for_what_it_may_not_signal") {
        return;
    }
    let start = Instant::now();
    let container = Container::init(&with(&["-t", "50"], "exit 3"));
    beside_a_process_of_roots(container).run_to(3);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn init_without_root_waits_for_what_it_may_signal() {
    if left_out("init_without_root_waits_for_what_it_may_signal") {
        return;
    }
    let container = beside_a_process_of_roots(Container::init(&sh(REMAINING)));
    let mut running = container.stdin(Stdio::piped()).start();
    running.expect("ready");
    drop(running.stdin.take());
    running.expect("got TERM");
    assert_eq!(running.finish().status.code(), Some(3));
}

#[test]
fn json_names_may_hold_anything() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("a\"b\\c");
    let sleep =
        ["/usr/bin/sleep", "/bin/sleep"].into_iter().find(|it| std::fs::exists(it).unwrap());
    std::os::unix::fs::symlink(sleep.unwrap(), &program).unwrap();
    let script = "(trap '' TERM; echo ready; exec \"$SLEEP\" 1000) & read go; exit 3";
    let container = Container::init(&with(&["-v", "-t0.1", "--log=json"], script));
    let container = container.env("SLEEP", program.to_str().unwrap()).stdin(Stdio::piped());
    let mut running = container.start();
    running.expect("ready");
    let name = || {
        let path = format!("/proc/{0}/task/{0}/children", running.init);
        let child = std::fs::read_to_string(path).unwrap();
        let path = format!("/proc/{0}/task/{0}/children", child.trim());
        let grandchild = std::fs::read_to_string(path).unwrap();
        std::fs::read_to_string(format!("/proc/{}/comm", grandchild.trim())).unwrap_or_default()
    };
    while name().trim_end() != "a\"b\\c" {
        std::thread::yield_now();
    }
    drop(running.stdin.take());
    let said = running.finish().stderr;
    let line =
        r#"{"program":"pid1","event":"ended","code":3,"remaining":1,"killed":1,"names":"a\"b\\c"}"#;
    assert_eq!(said.lines().last(), Some(line));
}
