//! Section 3: running.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;

use crate::container::{Container, DEADLINE, Running, sh, with};
use crate::limits::{arriving, is_x86_64, left_out};

/// A shell that prints the number of each signal that it gets, once it has said `ready`.
const ECHO_SIGNALS: &str = "
    n=1; while [ $n -le 64 ]; do
        case $n in 9|19|17|32|33) ;; *) trap \"echo $n\" $n ;; esac
        n=$((n + 1))
    done
    echo ready
    while :; do sleep 1000 & wait; done";

/// Those that a shell can have a trap for.
pub fn trappable() -> impl Iterator<Item = i32> {
    (1..=64).filter(|signal| ![9, 19, 17, 32, 33].contains(signal))
}

#[test]
fn every_signal_is_forwarded() {
    let mut running = Container::init(&sh(ECHO_SIGNALS)).start();
    running.expect("ready");
    for signal in arriving("every_signal_is_forwarded", trappable()) {
        running.signal(signal);
        running.expect(&signal.to_string());
    }
    running.destroy();
}

/// Handles no signal.
const PLAIN: &str = "echo ready; read go; echo alive; exit 6";

/// Those that end a program that does not handle them, and that nothing else comes with.
const ENDING: [i32; 8] = [1, 10, 12, 13, 14, 15, 26, 27];

#[test]
fn a_signal_ends_a_program_that_does_not_handle_it() {
    for signal in ENDING {
        let mut running = Container::init(&sh(PLAIN)).stdin(Stdio::piped()).start();
        running.expect("ready");
        running.signal(signal);
        let outcome = running.finish_by_itself();
        assert_eq!((outcome.status.code(), &*outcome.stdout), (Some(128 + signal), ""));
    }
}

#[test]
fn without_init_such_a_program_ignores_them() {
    // The negative control: nothing forwards, and the kernel drops what the first process does not
    // handle itself.
    let mut running = Container::bare(&sh(PLAIN)).stdin(Stdio::piped()).start();
    running.expect("ready");
    for signal in ENDING {
        running.signal(signal);
    }
    drop(running.stdin.take());
    running.expect("alive");
    assert_eq!(running.finish().status.code(), Some(6));
}

#[test]
fn signals_of_the_c_librarys_own_are_forwarded() {
    if left_out("signals_of_the_c_librarys_own_are_forwarded") {
        return;
    }
    for signal in [32, 33] {
        let mut running = Container::init(&sh("echo ready; exec sleep 1000")).start();
        running.expect("ready");
        running.signal(signal);
        assert_eq!(running.finish().status.code(), Some(128 + signal));
    }
}

#[test]
fn a_stopped_child_is_not_an_exit() {
    let mut running = Container::init(&sh("echo ready; kill -STOP $$; echo on; exit 4")).start();
    running.expect("ready");
    while children(&running) != ['T'] {
        thread::yield_now();
    }
    running.signal(libc::SIGCONT);
    running.expect("on");
    assert_eq!(running.finish().status.code(), Some(4));
}

/// Leaves fifty orphans behind that end when descriptor 7 does, and becomes a program that does not
/// look after children.
const ORPHANS: &str = "
    n=0; while [ $n -lt 50 ]; do (cat <&7 >/dev/null &); n=$((n + 1)); done
    echo ready; exec cat 7<&-";

/// The states of the first process's children, one letter each.
pub fn children(running: &Running) -> Vec<char> {
    let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.init)).unwrap();
    let stat = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let state = |pid| stat(pid).and_then(|stat| stat.rsplit(") ").next()?.chars().next());
    list.split_whitespace().filter_map(state).collect()
}

/// Runs `container` until its first process has as many children and zombies as said.
fn check_orphans(container: Container, expected: (usize, usize)) {
    let (release, container) = container.with_pipe_to_read();
    let mut running = container.stdin(Stdio::piped()).start();
    running.expect("ready");
    // The shell looks after its children up to the last moment: let it be gone first.
    running.stdin.as_ref().unwrap().write_all(b"replaced\n").unwrap();
    running.expect("replaced");
    drop(release);
    let deadline = Instant::now() + DEADLINE;
    loop {
        let states = children(&running);
        let zombies = states.iter().filter(|state| **state == 'Z').count();
        if (states.len(), zombies) == expected {
            break;
        }
        if Instant::now() >= deadline {
            running.destroy();
            panic!("{states:?}");
        }
        thread::yield_now();
    }
    drop(running.stdin.take());
    running.finish();
}

#[test]
fn orphans_are_reaped() {
    check_orphans(Container::init(&sh(ORPHANS)), (1, 0));
}

#[test]
fn without_init_orphans_stay_zombies() {
    check_orphans(Container::bare(&sh(ORPHANS)), (50, 50));
}

#[test]
fn a_refused_kill_does_not_end_init() {
    if left_out("a_refused_kill_does_not_end_init") {
        return;
    }
    // init without CAP_KILL, the child another user: EPERM.
    let script = "echo ready; read go; exit 6";
    let drop_kill = || {
        nix::unistd::setgroups(&[])?;
        // Keep the capability to change users for the child, not the one to signal them.
        // SAFETY: takes numbers.
        match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, 5, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    let container = Container::init(&with(&["-vv", "-u", "1234"], script)).setup(drop_kill);
    let mut running = container.stdin(Stdio::piped()).start();
    running.expect("ready");
    running.signal(libc::SIGTERM);
    running.signal(libc::SIGUSR1);
    running.wait_until_idle();
    drop(running.stdin.take());
    let outcome = running.finish();
    assert_eq!(outcome.status.code(), Some(6), "{outcome:?}");
    assert!(outcome.stderr.contains("failed=Operation not permitted"), "{outcome:?}");
}

#[test]
fn no_wake_ups_while_idle() {
    if left_out("no_wake_ups_while_idle") {
        return;
    }
    let mut running = Container::init(&sh("echo ready; exec sleep 1000")).start();
    running.expect("ready");
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", running.init)).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap();
        line.to_owned()
    };
    running.wait_until_idle();
    let before = switches();
    // Idle time is what is measured here; tini wakes every second.
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(switches(), before);
    running.destroy();
}

#[test]
fn a_fault_of_inits_own_ends_it() {
    let test = "a_fault_of_inits_own_ends_it";
    if left_out(test) || !is_x86_64(test) {
        return;
    }
    let mut running = Container::init(&sh("echo ready; exec sleep 1000")).start();
    running.expect("ready");
    running.wait_until_idle();
    // Where it goes on when it wakes: make that an instruction that does not exist.
    let fields = fs::read_to_string(format!("/proc/{}/syscall", running.init)).unwrap();
    let next = fields.trim().rsplit(' ').next().unwrap().trim_start_matches("0x");
    let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", running.init));
    memory.unwrap().write_all_at(&[0x0f, 0x0b], u64::from_str_radix(next, 16).unwrap()).unwrap();
    running.signal(libc::SIGUSR1);
    assert_eq!(running.finish().status.signal(), Some(libc::SIGILL));
}

/// The process ids of the first process's children, as seen from outside.
fn child(running: &Running) -> i32 {
    let path = format!("/proc/{0}/task/{0}/children", running.init);
    fs::read_to_string(path).unwrap().trim().parse().expect("there is one child")
}

#[test]
fn sigchld_is_not_forwarded() {
    let script =
        "trap 'echo CHLD' CHLD; trap 'echo USR1' USR1; echo ready; read go; read go; read go";
    let mut running = Container::init(&sh(script)).stdin(Stdio::piped()).start();
    running.expect("ready");
    running.signal(libc::SIGCHLD);
    running.wait_until_idle();
    running.signal(libc::SIGUSR1);
    running.expect("USR1");
    // The negative control: it would have said so.
    // SAFETY: takes two numbers; the process is ours.
    assert_eq!(unsafe { libc::kill(child(&running), libc::SIGCHLD) }, 0);
    running.expect("CHLD");
    running.destroy();
}

/// Has the first process inherit a child that is dead already, of which it was told when that
/// meant nothing yet.
fn with_a_dead_child(container: Container) -> Container {
    container.setup(|| {
        // SAFETY: between fork and exec; the child does nothing but end. It is waited for without
        // being reaped, and what is written on the way lives here.
        unsafe {
            match nix::unistd::fork()? {
                nix::unistd::ForkResult::Child => libc::_exit(0),
                nix::unistd::ForkResult::Parent { .. } => {
                    let mut info: libc::siginfo_t = std::mem::zeroed();
                    let how = libc::WEXITED | libc::WNOWAIT;
                    libc::waitid(libc::P_ALL, 0, &raw mut info, how);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn what_had_ended_before_we_started_is_reaped() {
    let script = "echo ready; exec sleep 1000";
    let mut running = with_a_dead_child(Container::init(&sh(script))).start();
    running.expect("ready");
    running.wait_until_idle();
    let states = children(&running);
    assert!(states.len() == 1 && states != ['Z'], "{states:?}");
    running.destroy();
}

#[test]
fn without_init_it_stays_a_zombie() {
    let script = "echo ready; exec sleep 1000";
    let mut running = with_a_dead_child(Container::bare(&sh(script))).start();
    running.expect("ready");
    assert_eq!(children(&running), ['Z']);
    running.destroy();
}
