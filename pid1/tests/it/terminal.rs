//! Section 2, the controlling terminal: on a real pseudo-terminal.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::Stdio;

use nix::libc;
use nix::pty::openpty;
use nix::unistd::{setsid, tcgetpgrp};

use crate::container::{Container, Running, sh};

/// The other side of a container's terminal.
struct Keyboard {
    master: File,
    seen: String,
}

impl Keyboard {
    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` has come, and gives everything before it.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        loop {
            if let Some(start) = self.seen.find(text) {
                let rest = self.seen.split_off(start + text.len());
                let before = std::mem::replace(&mut self.seen, rest);
                return before[..start].to_owned();
            }
            let mut buffer = [0; 1024];
            match self.master.read(&mut buffer) {
                Ok(count @ 1..) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..count])),
                _ => panic!("`{text}` never came, but `{}`", self.seen),
            }
        }
    }

    /// Waits until a process called `name` is in the foreground.
    fn wait_for_foreground(&self, name: &str) {
        let comm = || {
            let group = tcgetpgrp(&self.master).ok()?;
            fs::read_to_string(format!("/proc/{group}/comm")).ok()
        };
        while comm().is_none_or(|comm| comm.trim() != name) {
            std::thread::yield_now();
        }
    }
}

/// Runs `container` as the leader of a session with a terminal, on the descriptors `on`.
fn on_terminal(container: Container, on: std::ops::RangeInclusive<i32>) -> (Keyboard, Running) {
    let pty = openpty(None, None).unwrap();
    let slave = pty.slave;
    let container = container.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = container
        .setup(move || {
            use std::os::fd::AsRawFd;
            setsid()?;
            // SAFETY: takes numbers.
            if unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
            for descriptor in on.clone() {
                // SAFETY: replaces a standard descriptor of a process about to exec.
                unsafe { libc::dup2(slave.as_raw_fd(), descriptor) };
            }
            Ok(())
        })
        .start();
    (Keyboard { master: pty.master.into(), seen: String::new() }, running)
}

const SAY_SIGNALS: &str = "
    stty -echo
    trap 'echo got-INT' INT; trap 'echo got-QUIT' QUIT
    trap 'echo got-TTIN' TTIN; trap 'echo got-TTOU' TTOU; trap 'echo got-USR1' USR1
    echo ready
    while :; do sleep 1000 & wait; done";

#[test]
fn one_ctrl_c_is_one_sigint() {
    let (mut keyboard, running) = on_terminal(Container::init(&sh(SAY_SIGNALS)), 0..=2);
    keyboard.wait_for("ready");
    keyboard.press("\x03");
    keyboard.wait_for("got-INT");
    keyboard.press("\x1c");
    let between = keyboard.wait_for("got-QUIT");
    assert!(!between.contains("got-INT"), "{between}");
    running.destroy();
}

#[test]
fn ctrl_z_works_in_a_shell() {
    let (mut keyboard, running) = on_terminal(Container::init(&["sh", "-i"]), 0..=2);
    keyboard.press("sleep 1000\n");
    keyboard.wait_for_foreground("sleep");
    keyboard.press("\x1a");
    keyboard.wait_for_foreground("sh");
    keyboard.press("echo al''ive\n");
    keyboard.wait_for("alive");
    keyboard.press("kill %1; exit 7\n");
    // The shell warns of the stopped job the first time.
    keyboard.press("exit 7\n");
    assert_eq!(running.finish().status.code(), Some(7));
}

#[test]
fn child_has_the_foreground_and_a_group_of_its_own() {
    for on in [0..=2, 1..=2, 2..=2] {
        // Its process group is the terminal's, and not init's.
        let script = "set -- $(cat /proc/$$/stat); echo group $5 $8 >&2";
        let (mut keyboard, running) = on_terminal(Container::init(&sh(script)), on);
        keyboard.wait_for("group ");
        let groups = keyboard.wait_for("\r");
        let groups: Vec<_> = groups.split(' ').collect();
        assert_eq!(groups[0], groups[1]);
        assert_ne!(groups[0], "1");
        running.finish();
    }
}

#[test]
fn background_signals_of_the_terminal_are_not_forwarded() {
    let (mut keyboard, running) = on_terminal(Container::init(&sh(SAY_SIGNALS)), 0..=2);
    keyboard.wait_for("ready");
    running.signal(libc::SIGTTIN);
    running.signal(libc::SIGTTOU);
    running.signal(libc::SIGUSR1);
    let before = keyboard.wait_for("got-USR1");
    assert!(!before.contains("got-TT"), "{before}");
    running.destroy();
}

#[test]
fn a_terminal_that_hangs_up_ends_the_child_by_sighup() {
    let (mut keyboard, running) = on_terminal(
        Container::init(&sh("trap 'exit 9' HUP; echo ready; while :; do sleep 1000 & wait; done")),
        0..=2,
    );
    keyboard.wait_for("ready");
    drop(keyboard);
    assert_eq!(running.finish().status.code(), Some(9));
}

#[test]
fn dumb_init_gives_the_child_a_session_and_the_terminal() {
    // Session, terminal's group and own group are all the child's; the terminal's parting SIGHUP
    // does not reach it.
    let script =
        "trap 'exit 9' HUP; set -- $(cat /proc/$$/stat); echo ids $1 $5 $6 $8; read go; exit 4";
    let (mut keyboard, running) = on_terminal(Container::called("dumb-init", &sh(script)), 0..=2);
    keyboard.wait_for("ids ");
    let ids = keyboard.wait_for("\r");
    let ids: Vec<_> = ids.split(' ').collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    keyboard.press("go\n");
    assert_eq!(running.finish().status.code(), Some(4));
}

#[test]
fn dumb_init_forwards_the_first_sighup_that_somebody_sends() {
    let script = "trap 'echo got-HUP' HUP; trap 'echo got-CONT' CONT; echo ready
        while :; do sleep 1000 & wait; done";
    let (mut keyboard, running) = on_terminal(Container::called("dumb-init", &sh(script)), 0..=2);
    // The terminal's own have been let go of by then.
    let before = keyboard.wait_for("ready");
    assert!(!before.contains("got"), "{before}");
    running.signal(libc::SIGHUP);
    keyboard.wait_for("got-HUP");
    running.signal(libc::SIGCONT);
    keyboard.wait_for("got-CONT");
    running.destroy();
}

#[test]
fn not_first_the_terminal_is_given_back() {
    // The shell does not take it itself: it has no jobs.
    let script = "$PID1 -s true; read line; echo got-$line";
    let (mut keyboard, running) = on_terminal(Container::bare(&sh(script)), 0..=2);
    keyboard.press("it\n");
    keyboard.wait_for("got-it");
    running.finish();
}
