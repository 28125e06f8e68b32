//! The transcripts of "Docker demons: PID-1, orphans, zombies, and signals", with pid1 and without.

use crate::built::{Done, done, xtask};

const TERM: &str = "15";

/// Runs the image `docker-testing`, with the options and the command in `line`.
fn docker_run(line: &str) -> Done {
    let words = line.split(' ').map(|word| word.trim_matches('\''));
    done(xtask().arg("run").args(words))
}

#[track_caller]
fn gives(line: &str, code: i32, stdout: &str) {
    let done = docker_run(line);
    assert_eq!((done.code, done.stdout.as_str()), (Some(code), stdout), "{line}: {}", done.stderr);
}

/// What `orphans` prints: its `echo`s in any order, and then its table.
fn orphans(line: &str) -> (Vec<String>, String) {
    let done = docker_run(line);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let lines: Vec<_> = done.stdout.lines().map(str::to_string).collect();
    let mut echoed = lines[..4].to_vec();
    echoed.sort();
    (echoed, lines[4..].join("\n"))
}

#[test]
fn sigterm_dies_under_pid1() {
    gives("docker-testing sigterm", 143, "");
}

#[test]
fn sigterm_is_still_alive_without_it() {
    let done = docker_run("--deadline 2 --entrypoint '' docker-testing sigterm");
    assert_eq!(done.code, Some(124), "it was killed: {}", done.stderr);
    assert!(done.stdout.starts_with("Still alive!\nStill alive!\n"), "{}", done.stdout);
}

#[test]
fn sigterm_with_a_handler_exits_42_with_or_without_pid1() {
    gives("docker-testing sigterm install-handler", 42, "");
    gives("--entrypoint '' docker-testing sigterm install-handler", 42, "");
}

#[test]
fn orphans_are_reaped_by_pid1() {
    let (echoed, table) = orphans("docker-testing orphans");
    assert_eq!(echoed, ["1", "2", "3", "4"]);
    assert!(table.contains("    1     0 "), "{table}");
    assert!(table.contains(" /sbin/pid1 orphans\n"), "{table}");
    assert!(!table.contains("<defunct>"), "{table}");
}

#[test]
fn orphans_stay_as_zombies_without_it() {
    let (echoed, table) = orphans("--entrypoint '' docker-testing orphans");
    assert_eq!(echoed, ["1", "2", "3", "4"]);
    assert_eq!(table.matches("Z    [echo] <defunct>").count(), 4, "{table}");
}

#[test]
fn the_surviving_get_a_term_from_pid1_and_time_for_it() {
    let four = "Got a TERM\n".repeat(4);
    gives("docker-testing surviving", 0, &format!("Leaving 4 children behind\n{four}"));
}

#[test]
fn the_surviving_get_nothing_without_it() {
    gives("--entrypoint '' docker-testing surviving", 0, "Leaving 4 children behind\n");
}

#[test]
fn sleep_ends_with_143_when_it_is_stopped_under_pid1() {
    gives(&format!("--signal {TERM} docker-testing sleep 100"), 143, "");
}

#[test]
fn a_program_without_a_handler_is_not_stopped_without_it() {
    let signal = format!("--signal {TERM}@Still --deadline 2 --entrypoint ''");
    let done = docker_run(&format!("{signal} docker-testing sigterm"));
    assert_eq!(done.code, Some(124), "it was killed: {}", done.stderr);
}

#[test]
fn ps_shows_pid1_as_pid_1() {
    gives("docker-testing ps -o args 1", 0, "/sbin/pid1 ps -o args 1\n");
    gives("--entrypoint '' docker-testing ps -o args 1", 0, "ps -o args 1\n");
}

#[test]
fn ps_is_what_the_image_runs_by_default() {
    let done = docker_run("docker-testing");
    let lines: Vec<_> = done.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", done.stdout);
    assert_eq!(lines[0], "  PID  PPID STAT COMMAND");
    assert!(lines[1].starts_with("    1     0 "), "{}", lines[1]);
    assert!(lines[1].ends_with(" /sbin/pid1 ps"), "{}", lines[1]);
    assert!(lines[2].ends_with(" 1 R    ps"), "{}", lines[2]);
}

/// `ENTRYPOINT /sbin/pid1` is `["/bin/sh", "-c", "/sbin/pid1"]`. The image has no shell; the one
/// the sandbox puts there knows no more than this, and like every shell drops what follows.
#[test]
fn an_entrypoint_in_shell_form_is_told_of_its_mistake() {
    let done = docker_run("--entrypoint /bin/sh docker-testing -c /sbin/pid1 ps");
    assert_eq!((done.code, done.stdout.as_str()), (Some(125), ""));
    assert_eq!(
        done.stderr,
        "pid1: No arguments provided\n\
         pid1: an ENTRYPOINT in shell form passes none on, write ENTRYPOINT [\"/sbin/pid1\"]\n"
    );
}
