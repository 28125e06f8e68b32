//! What `cargo xtask demo` shows, line by line.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::built::{Done, done, host, xtask};
use crate::push::fixture::comes_about;

/// How long a sandbox may take to be there, and to go.
const PATIENCE: Duration = Duration::from_secs(20);

pub const SIGTERM: &str = "\
sigterm

The kernel drops a signal that PID 1 has no handler for: the program lives for ever.
Under pid1 it is a process like any other, and ends of its SIGTERM.

without pid1
$ cargo xtask run --entrypoint sigterm docker-testing
Still alive!
Still alive!
Still alive!
-> does not end: killed by the demonstration after 2.5 s

with pid1
$ cargo xtask run docker-testing sigterm
-> exit code 143: 128 and SIGTERM

";

pub const SLEEP: &str = "\
sleep

`docker kill -s TERM` is for PID 1 alone, and `sleep` as PID 1 sleeps on until it is killed.
pid1 hands the signal on to `sleep`, which ends at once.

without pid1
$ cargo xtask run --entrypoint sleep docker-testing 100
-> SIGTERM is sent
-> does not end: killed by the demonstration after 2.5 s

with pid1
$ cargo xtask run docker-testing sleep 100
-> SIGTERM is sent
-> exit code 143: 128 and SIGTERM

";

pub const ORPHANS: &str = "\
orphans

Who loses its parent becomes a child of PID 1, and a zombie unless that asks how it ended.
pid1 does so at once, and none is left.

without pid1
$ cargo xtask run --entrypoint orphans docker-testing
N
N
N
N
  PID  PPID STAT COMMAND
    1     0 R    orphans
    3     1 Z    [echo] <defunct>
    5     1 Z    [echo] <defunct>
    7     1 Z    [echo] <defunct>
    9     1 Z    [echo] <defunct>
-> exit code 0

with pid1
$ cargo xtask run docker-testing orphans
N
N
N
N
  PID  PPID STAT COMMAND
    1     0 S    /sbin/pid1 orphans
    2     1 R    orphans
-> exit code 0

";

pub const SURVIVING: &str = "\
surviving

When PID 1 ends, the kernel kills all else in the container, whatever that was doing.
pid1 sends SIGTERM first, and gives what remains time to act on it.

without pid1
$ cargo xtask run --entrypoint surviving docker-testing
Leaving 4 children behind
-> exit code 0

with pid1
$ cargo xtask run docker-testing surviving
Leaving 4 children behind
Got a TERM
Got a TERM
Got a TERM
Got a TERM
-> exit code 0

";

pub const ENTRYPOINT: &str = "\
entrypoint

In shell form `/bin/sh -c` runs the entrypoint and drops the command: pid1 says so.
In exec form, with brackets, the command reaches it.

ENTRYPOINT /sbin/pid1
$ cargo xtask run --entrypoint /bin/sh docker-testing -c /sbin/pid1 echo hello
pid1: No arguments provided
pid1: an ENTRYPOINT in shell form passes none on, write ENTRYPOINT [\"/sbin/pid1\"]
-> exit code 125

ENTRYPOINT [\"/sbin/pid1\"]
$ cargo xtask run docker-testing echo hello
hello
-> exit code 0

";

pub fn demo(names: &[&str]) -> Done {
    done(xtask().arg("demo").args(names))
}

#[track_caller]
fn shows(names: &[&str], expected: &str) {
    let done = demo(names);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), expected), "{}", done.stderr);
}

/// What is different every time: the order in which the `echo`s come, and whether pid1 sleeps
/// already.
pub fn normalised(text: &str) -> String {
    let line = |line: &str| match line {
        "1" | "2" | "3" | "4" => "N".to_string(),
        line => line.replace("1     0 R    /sbin/pid1", "1     0 S    /sbin/pid1"),
    };
    text.split_terminator('\n').map(|it| line(it) + "\n").collect()
}

#[test]
fn sigterm_without_an_init_is_bounded_and_said_to_be() {
    shows(&["sigterm"], SIGTERM);
}

#[test]
fn sleep_is_sent_a_sigterm_on_both_sides() {
    shows(&["sleep"], SLEEP);
}

#[test]
fn orphans_are_zombies_on_one_side_only() {
    let done = demo(&["orphans"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(normalised(&done.stdout), ORPHANS);
}

#[test]
fn the_surviving_are_heard_on_one_side_only() {
    shows(&["surviving"], SURVIVING);
}

#[test]
fn an_entrypoint_in_shell_form_is_beside_one_in_exec_form() {
    shows(&["entrypoint"], ENTRYPOINT);
}

#[test]
fn without_a_name_all_are_shown_in_the_order_of_the_post() {
    let done = demo(&[]);
    let all = [SIGTERM, SLEEP, ORPHANS, SURVIVING, ENTRYPOINT].concat();
    assert_eq!((done.code, normalised(&done.stdout)), (Some(0), all), "{}", done.stderr);
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    let done = demo(&["zombies"]);
    assert_eq!(done.code, Some(2));
    let names = "[possible values: sigterm, sleep, orphans, surviving, entrypoint]";
    assert!(done.stderr.contains(names), "{}", done.stderr);
}

/// What it shows on a terminal of so many columns.
fn on_a_terminal(columns: u32, name: &str) -> String {
    let xtask = xtask();
    let line = format!(
        "stty rows 50 cols {columns}; {} --quiet demo {name}",
        xtask.get_program().to_str().unwrap()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    for (name, value) in xtask.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        script.env(name, value);
    }
    let done = done(&mut script);
    assert_eq!(done.code, Some(0), "{done:?}");
    done.stdout.replace("\r\n", "\n")
}

#[test]
fn a_wide_terminal_has_both_sides_in_columns_and_a_narrow_one_has_not() {
    let wide = on_a_terminal(140, "entrypoint");
    let blank_line = ENTRYPOINT.find("\n\nENTRYPOINT").unwrap();
    let (head, sides) = ENTRYPOINT.split_at(blank_line + 2);
    let (left, right) = sides.trim_end().split_once("\n\n").unwrap();
    let right = right.lines().chain([""; 2]);
    let rows = left.lines().zip(right).map(|(left, right)| format!("{left:81} │ {right}"));
    let rows: Vec<_> = rows.map(|row| row.trim_end().to_string()).collect();
    assert_eq!(wide, format!("{head}{}\n\n", rows.join("\n")));
    assert_eq!(on_a_terminal(100, "entrypoint"), ENTRYPOINT);
}

#[test]
fn an_image_that_was_not_built_is_named_with_the_remedy() {
    let empty = tempfile::tempdir().unwrap();
    let done = done(xtask().env("CARGO_TARGET_DIR", empty.path()).arg("demo"));
    let expected = format!(
        "error: cannot show anything without the image `docker-testing`, run `cargo xtask dist \
         docker-testing --platform {}`\n",
        host()
    );
    assert_eq!((done.code, done.stdout, done.stderr), (Some(1), String::new(), expected));
}

/// The processes that `parent` has started, and theirs.
fn descendants(parent: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children: Vec<u32> =
        list.unwrap_or_default().split(' ').filter_map(|it| it.parse().ok()).collect();
    let below = children.iter().flat_map(|child| descendants(*child)).collect::<Vec<_>>();
    [children, below].concat()
}

#[test]
fn ctrl_c_ends_it_and_what_it_runs() {
    let mut command = xtask();
    command.args(["demo", "sigterm"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let is_pid_1 = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|it| it == "sigterm\0")
    };
    let mut sigterm = None;
    assert!(comes_about(PATIENCE, || {
        sigterm = descendants(child.id()).into_iter().find(is_pid_1);
        sigterm.is_some()
    }));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let done = Done::of(&child.wait_with_output().unwrap());
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert_eq!(done.stderr, "error: interrupted; what was half made has been removed\n");
    assert!(comes_about(PATIENCE, || !sigterm.as_ref().is_some_and(is_pid_1)));
}
