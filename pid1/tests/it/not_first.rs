//! Sections 2, 4 and 5 where somebody else is PID 1: what is ours and what is not.

use std::time::{Duration, Instant};

use crate::container::{Container, DEADLINE, Outcome, pid1_called, sh};
use crate::limits::left_out;

#[test]
fn listen_pid_stays_where_there_is_no_init_between() {
    // The shell is who was activated; what it starts is not.
    let outcome =
        Container::bare(&sh("$PID1 printenv LISTEN_PID")).env("LISTEN_PID", "1").run_to(0);
    assert_eq!(outcome.stdout, "1\n");
}

#[test]
fn parent_death_signal_outlives_a_change_of_user() {
    if left_out("parent_death_signal_outlives_a_change_of_user") {
        return;
    }
    let outer = "
        sh -c '$PID1 -u 65534 --parent-death-signal USR1 sh -c \"
            trap \\\"echo got USR1; exit\\\" USR1; echo ready; while :; do sleep 1000 & wait; done\" & wait' &
        parent=$!; read go; kill -KILL $parent; sleep 1000 & wait";
    let container = Container::bare(&sh(outer)).stdin(std::process::Stdio::piped());
    let mut running = container.start();
    running.expect("ready");
    drop(running.stdin.take());
    running.expect("got USR1");
    running.destroy();
}

#[test]
fn who_is_the_user_already_may_be_asked_to_become_it() {
    if left_out("who_is_the_user_already_may_be_asked_to_become_it") {
        return;
    }
    // The variable reaches a second pid1, which is nobody but `nobody` already.
    let words = sh("$PID1 id -u; $PID1 -g 65534 id -g; $PID1 -u 1234 true; echo $?");
    let outcome = Container::init(&words).env("PID1_USER", "65534:65534").run_to(0);
    let refused = "pid1: cannot run `true`: cannot set the groups: Operation not permitted\n";
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("65534\n65534\n125\n", refused));
}

/// Runs `outer`, in which the descriptors 7 and 8 are the ends of one pipe.
fn with_fifo(outer: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo").into_os_string().into_string().unwrap();
    let outer = format!("mkfifo $0; exec 7<>$0 8<&7; {outer}");
    Container::bare(&["sh", "-c", &outer, &fifo]).run_to(0)
}

#[test]
fn only_what_is_ours_is_named_as_killed() {
    let child = "(trap \"\" TERM; echo ready >&7; exec sleep 1000) & read ready <&8; exit 3";
    let said = with_fifo(&format!(
        "tail -f /dev/null & $PID1 -s -v -t 0.1 sh -c '{child}'; kill $!; true"
    ));
    let last = said.stderr.lines().last();
    assert_eq!(last, Some("pid1: ended code=3 remaining=1 killed=1 names=sleep"));
}

#[test]
fn a_subreaper_without_proc_ends_what_its_child_led() {
    if left_out("works_without_proc") {
        return;
    }
    let child = "(trap \"echo got TERM; exit\" TERM; echo ready >&7; while :; do sleep 1000 & wait; done) & \
        read ready <&8; exit 3";
    let outcome =
        with_fifo(&format!("umount -l /proc; $PID1 -s -t 20 sh -c '{child}'; echo code $?"));
    assert_eq!(outcome.stdout, "got TERM\ncode 3\n");
}

#[test]
fn zombies_that_are_somebody_elses_are_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let init = pid1_called("dumb-init", &folder);
    // As PID 1, `sleep` reaps nobody. What remains of the group ends by SIGTERM, and stays.
    let script = r#"("$@" sh -c 'sleep 1000 & exit 3'; echo code $?) & exec sleep 1000"#;
    let words = ["sh", "-c", script, "sh"].map(Into::into);
    let mut running = Container::bare(&[&words[..], &init].concat()).start();
    let start = Instant::now();
    running.expect("code 3");
    // With them, it would have been the five seconds of a timeout that nothing shortens, and more.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?} of {DEADLINE:?}", start.elapsed());
    running.destroy();
}
