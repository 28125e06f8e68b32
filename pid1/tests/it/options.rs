//! Section 1: what the options of the supervisor do.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::libc;

use crate::container::{Container, DEADLINE, Outcome, Running, with};
use crate::limits::left_out;

/// Says which of some signals it gets, after `ready`.
const SAY_SIGNALS: &str = "
    for name in HUP INT QUIT USR1 USR2 TERM WINCH; do trap \"echo $name\" $name; done
    echo ready
    while :; do sleep 1000 & wait; done";

#[track_caller]
fn say_signals(options: &[&str]) -> Running {
    let mut running = Container::init(&with(options, SAY_SIGNALS)).start();
    running.expect("ready");
    running
}

#[track_caller]
fn check_rewrite(container: Container, sent: i32, expected: &str) {
    let mut running = container.start();
    running.expect("ready");
    running.signal(sent);
    running.expect(expected);
    running.destroy();
}

#[test]
fn rewrite_forwards_another_signal() {
    let rewrite = |rule| Container::init(&with(&["--rewrite", rule], SAY_SIGNALS));
    check_rewrite(rewrite("TERM:QUIT"), libc::SIGTERM, "QUIT");
    check_rewrite(rewrite("15:3"), libc::SIGTERM, "QUIT");
    let list = Container::init(&with(&[], SAY_SIGNALS)).env("PID1_REWRITE", "TERM:INT,USR1:HUP");
    check_rewrite(list, libc::SIGUSR1, "HUP");
}

#[test]
fn rewrite_takes_real_time_signals() {
    if left_out("rewrite_takes_real_time_signals") {
        return;
    }
    // systemd's order to a container to end.
    let options = ["--rewrite=SIGRTMIN+3:sigterm"];
    check_rewrite(Container::init(&with(&options, SAY_SIGNALS)), 37, "TERM");
}

#[test]
fn rewrite_to_0_drops() {
    let mut running = say_signals(&["--rewrite=HUP:0", "--rewrite=USR1:USR2"]);
    running.signal(libc::SIGHUP);
    running.signal(libc::SIGUSR1);
    running.expect("USR2");
    running.destroy();
}

#[test]
fn map_exit_replaces_exit_codes() {
    Container::init(&with(&["--map-exit", "3:0"], "exit 3")).run_to(0);
    Container::init(&with(&["--map-exit=143:0", "--map-exit=4:5"], "kill $$")).run_to(0);
    Container::init(&with(&["--map-exit=143:0", "--map-exit=4:5"], "exit 4")).run_to(5);
    Container::init(&with(&["--map-exit=3:0"], "exit 4")).run_to(4);
    Container::init(&with(&[], "exit 9")).env("PID1_MAP_EXIT", "8:1 9:2").run_to(2);
    Container::init(&["--map-exit=127:9", "no-such"]).run_to(9);
}

/// Two processes of the child's group that say what they get.
const GROUP: &str = "
    (trap 'echo member' USR1; echo ready; while :; do sleep 1000 & wait; done) &
    trap 'echo leader' USR1; echo ready
    while :; do sleep 1000 & wait; done";

#[test]
fn signal_group_reaches_the_whole_group() {
    let group = Container::init(&with(&["--signal-group"], GROUP));
    assert_eq!(who_gets_usr1(group, 1), ["leader", "member"]);
}

#[test]
fn without_signal_group_the_child_alone_is_signalled() {
    assert_eq!(who_gets_usr1(Container::init(&with(&[], GROUP)), 2), ["leader", "leader"]);
}

#[test]
fn wait_all_stays_until_everybody_is_gone() {
    let script = "(read go; echo last) <&7 & exit 3";
    let (release, container) = Container::init(&with(&["--wait-all"], script)).with_pipe_to_read();
    let mut running = container.start();
    drop(release);
    running.expect("last");
    assert_eq!(running.finish().status.code(), Some(3));
}

#[test]
fn wait_all_ends_when_it_is_told_to() {
    let script = "
        (trap 'echo got TERM; exit' TERM; while kill -0 $$ 2>/dev/null; do :; done; echo ready
        while :; do sleep 1000 & wait; done) & exit 3";
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut running = Container::init(&with(&["--wait-all"], script)).start();
        running.expect("ready");
        running.signal(signal);
        running.expect("got TERM");
        assert_eq!(running.finish().status.code(), Some(3));
    }
}

#[test]
fn wait_all_does_not_wait_once_it_was_told_to_end() {
    let script = "(trap '' TERM; exec sleep 1000) & echo ready; wait";
    let mut running = Container::init(&with(&["--wait-all", "-t0.1"], script)).start();
    running.expect("ready");
    running.signal(libc::SIGTERM);
    assert_eq!(running.finish().status.code(), Some(143));
}

#[test]
fn a_dropped_sigterm_is_no_order_to_end() {
    let script = "(read go; echo last) <&7 & echo ready; exit 3";
    let options = ["--wait-all", "--rewrite=TERM:0"];
    let (release, container) = Container::init(&with(&options, script)).with_pipe_to_read();
    let mut running = container.start();
    running.expect("ready");
    running.signal(libc::SIGTERM);
    running.wait_until_idle();
    running.signal(libc::SIGTERM);
    running.wait_until_idle();
    drop(release);
    running.expect("last");
    assert_eq!(running.finish().status.code(), Some(3));
}

#[test]
fn what_becomes_sigterm_is_an_order_to_end() {
    if left_out("what_becomes_sigterm_is_an_order_to_end") {
        return;
    }
    // systemd's order to a container to end.
    let (rewrite, order) = ("--rewrite=RTMIN+3:TERM", 37);
    let script = "(trap '' TERM; exec sleep 1000) & trap '' TERM; echo ready; read go; exit 3";
    let options = ["--wait-all", "-t0.1", rewrite];
    let container = Container::init(&with(&options, script)).stdin(Stdio::piped());
    let mut running = container.start();
    running.expect("ready");
    drop(running.stdin.take());
    running.wait_until_idle();
    running.signal(order);
    assert_eq!(running.finish().status.code(), Some(3));

    let options = ["--kill-after=0.1", "-t0.1", rewrite];
    let mut running = Container::init(&with(&options, DEAF)).start();
    running.expect("ready");
    running.signal(order);
    assert_eq!(running.finish().status.code(), Some(137));
}

/// Takes no notice of SIGTERM and SIGINT.
const DEAF: &str = "trap '' TERM INT; echo ready; while :; do sleep 1000; done";

#[test]
fn kill_after_ends_a_child_that_ignores_sigterm() {
    let options = ["--kill-after", "0.2", "-t", "0.2"];
    let mut running = Container::init(&with(&options, DEAF)).start();
    running.expect("ready");
    let start = Instant::now();
    running.signal(libc::SIGTERM);
    assert_eq!(running.finish().status.code(), Some(137));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn kill_after_is_off_by_default_and_never_for_sigint() {
    let patient = |options: &[&str], signal| {
        let script = "trap '' INT TERM; echo ready; read go; exit 6";
        let container = Container::init(&with(options, script)).stdin(Stdio::piped());
        let mut running = container.start();
        running.expect("ready");
        running.signal(signal);
        // Longer than the time that it would be given.
        std::thread::sleep(Duration::from_millis(500));
        drop(running.stdin.take());
        assert_eq!(running.finish().status.code(), Some(6));
    };
    patient(&["-t0"], libc::SIGTERM);
    patient(&["-t0", "--kill-after=0.1"], libc::SIGINT);
}

#[test]
fn drain_holds_the_first_sigterm_back() {
    let mut running = say_signals(&["--drain", "0.4"]);
    let start = Instant::now();
    running.signal(libc::SIGTERM);
    running.signal(libc::SIGUSR1);
    // What is not SIGTERM does not wait.
    running.expect("USR1");
    running.expect("TERM");
    assert!(start.elapsed() >= Duration::from_millis(400));
    running.destroy();
}

#[test]
fn a_second_sigterm_goes_through_at_once() {
    let mut running = say_signals(&["--drain", "1000"]);
    running.signal(libc::SIGTERM);
    // Two of the same are one until the first is taken. A higher one is taken after it.
    running.signal(libc::SIGWINCH);
    running.expect("WINCH");
    running.signal(libc::SIGTERM);
    running.expect("TERM");
    running.destroy();
}

/// Runs pid1 with `options` as an ordinary process of a container, and then `after`.
fn not_first(options: &str, script: &str, after: &str) -> Outcome {
    let outer = format!("$PID1 {options} sh -c '{script}'; echo code $?; {after}");
    Container::bare(&["sh", "-c", &outer]).run_to(0)
}

#[test]
fn subreaper_ends_its_descendants_only() {
    let script = "(setsid sleep 1000 &); (setsid sleep 1000 &); exit 3";
    let after = "kill -0 $other && echo other lives; pgrep -xc sleep";
    let outer = format!("sleep 1000 & other=$!; $PID1 -s sh -c '{script}'; echo code $?; {after}");
    let outcome = Container::bare(&["sh", "-c", &outer]).run_to(0);
    assert_eq!(outcome.stdout, "code 3\nother lives\n1\n");
}

#[test]
fn without_subreaper_orphans_are_not_ours() {
    let after = "until pgrep -x sleep >/dev/null; do :; done; echo orphan lives";
    let outcome = not_first("", "(setsid sleep 1000 &); exit 3", after);
    assert_eq!(outcome.stdout, "code 3\norphan lives\n");
}

#[test]
fn subreaper_gives_descendants_time() {
    let script = "(trap \"echo got TERM; exit\" TERM; echo ready >&7; while :; do sleep 1000 & wait; done) & \
        read line <&8; exit 3";
    let outer = format!(
        "mkfifo $0; exec 7<>$0 8<&7; PID1_SUBREAPER=1 $PID1 sh -c '{script}'; echo code $?"
    );
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let outcome = Container::bare(&["sh", "-c", &outer, fifo.to_str().unwrap()]).run_to(0);
    assert_eq!(outcome.stdout, "got TERM\ncode 3\n");
}

#[test]
fn parent_death_signal_comes_when_the_parent_dies() {
    // The parent is killed; the signal is forwarded like any other.
    let outer = "
        sh -c '$PID1 -s --parent-death-signal USR1 sh -c \"
            trap \\\"echo got USR1; exit\\\" USR1; echo ready; while :; do sleep 1000 & wait; done\" & wait' &
        parent=$!; read go; kill -KILL $parent; sleep 1000 & wait";
    let mut running = Container::bare(&["sh", "-c", outer]).stdin(Stdio::piped()).start();
    running.expect("ready");
    drop(running.stdin.take());
    running.expect("got USR1");
    running.destroy();
}

#[test]
fn verbose_once_twice_and_three_times() {
    let lines = |options: &[&str]| {
        let outcome =
            Container::init(&with(options, "trap : USR1; kill -USR1 1; (sleep 0 &); exit 3"))
                .run_to(3);
        outcome.stderr
    };
    assert_eq!(lines(&[]), "");
    let once = lines(&["-v"]);
    assert!(once.starts_with("pid1: started pid="), "{once}");
    assert!(!once.contains("forwarded") && !once.contains("reaped"), "{once}");
    let thrice = lines(&["-vvv"]);
    assert!(thrice.contains("reaped pid="), "{thrice}");
}

#[test]
fn what_was_killed_is_named() {
    let script = "(trap '' TERM; echo ready; exec sleep 1000) & read go; exit 3";
    let container = Container::init(&with(&["-v", "-t0.1"], script)).stdin(Stdio::piped());
    let mut running = container.start();
    running.expect("ready");
    drop(running.stdin.take());
    let outcome = running.finish();
    let last = outcome.stderr.lines().last();
    assert_eq!(last, Some("pid1: ended code=3 remaining=1 killed=1 names=sleep"));
}

/// Ends `container` with a visitor in it. Gives what that one says, and its exit code.
#[track_caller]
fn end_with_a_visitor(container: Container) -> (Option<String>, Option<i32>) {
    let mut running = container.stdin(Stdio::piped()).start();
    running.expect("ready");
    // As `docker exec` does: no child of anybody in the container.
    // A signal that comes between a shell's fork and exec is lost: wait until that is over.
    let visitor = "trap 'echo visitor got TERM; exit 5' TERM; sleep 1000 &
        until [ \"$(cat /proc/$!/comm)\" = sleep ]; do :; done; echo in; wait";
    let target = running.init.to_string();
    let mut visitor = std::process::Command::new("nsenter")
        .args(if nix::unistd::geteuid().is_root() {
            &[][..]
        } else {
            &["--user", "--preserve-credentials"][..]
        })
        .args(["--pid", "--mount", "--target", &target, "sh", "-c", visitor])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(visitor.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "in");
    drop(running.stdin.take());
    let said = lines.next().map(Result::unwrap);
    let code = visitor.wait().unwrap().code();
    assert_eq!(running.finish().status.code(), Some(3));
    (said, code)
}

const UNTIL_TOLD: &str = "echo ready; read go; exit 3";

#[test]
fn processes_that_came_in_from_outside_get_time_too() {
    let start = Instant::now();
    let ended = end_with_a_visitor(Container::init(&with(&["-t", "30"], UNTIL_TOLD)));
    assert_eq!(ended, (Some("visitor got TERM".to_owned()), Some(5)));
    assert!(start.elapsed() < DEADLINE / 3, "{:?}", start.elapsed());
}

#[test]
fn without_init_they_are_killed_without_a_word() {
    let (said, code) = end_with_a_visitor(Container::bare(&with(&[], UNTIL_TOLD)));
    assert_eq!(said, None);
    assert_ne!(code, Some(5));
}

type Check = fn(Container);

/// Each option that has a variable, a value for both, a script, and what both must do to it.
const BOTH_WAYS: &[(&str, &str, &str, &str, Check)] = &[
    ("--kill-after", "PID1_KILL_AFTER", "0.2", DEAF, |container| {
        let mut running = container.env("PID1_TIMEOUT", "0.2").start();
        running.expect("ready");
        running.signal(libc::SIGTERM);
        assert_eq!(running.finish().status.code(), Some(137));
    }),
    ("--drain", "PID1_DRAIN", "0.4", SAY_SIGNALS, |container| {
        let mut running = container.start();
        running.expect("ready");
        running.signal(libc::SIGTERM);
        running.signal(libc::SIGUSR1);
        running.expect("USR1");
        running.expect("TERM");
    }),
    ("--signal-group", "PID1_SIGNAL_GROUP", "1", GROUP, |container| {
        assert_eq!(who_gets_usr1(container, 1), ["leader", "member"]);
    }),
    ("--wait-all", "PID1_WAIT_ALL", "1", "(read go; echo last) <&7 & exit 3", |container| {
        let (release, container) = container.with_pipe_to_read();
        let mut running = container.start();
        running.wait_until_idle();
        drop(release);
        running.expect("last");
        assert_eq!(running.finish().status.code(), Some(3));
    }),
    ("--timeout", "PID1_TIMEOUT", "0.1", "trap '' TERM; sleep 1000 & exit 3", |container| {
        let said = container.env("PID1_VERBOSE", "1").run_to(3).stderr;
        assert!(said.contains("ended code=3 remaining=1 killed=1"), "{said}");
    }),
    ("--verbose", "PID1_VERBOSE", "1", "(true &); exit 3", |container| {
        let said = container.run_to(3).stderr;
        assert!(said.starts_with("pid1: started pid=") && !said.contains("reaped"), "{said}");
    }),
    ("--log", "PID1_LOG", "json", "exit 3", |container| {
        let said = container.env("PID1_VERBOSE", "1").run_to(3).stderr;
        assert!(said.lines().all(|line| line.starts_with("{\"program\":\"pid1\",")), "{said}");
        assert_ne!(said, "");
    }),
];

/// Who says that they got USR1, sent that many times: two lines in all.
#[track_caller]
fn who_gets_usr1(container: Container, times: usize) -> [String; 2] {
    let mut running = container.start();
    running.expect("ready");
    running.expect("ready");
    let mut lines = [0, 1].map(|index| {
        if index < times {
            running.signal(libc::SIGUSR1);
        }
        running.line()
    });
    running.destroy();
    lines.sort();
    lines
}

#[test]
fn by_option_or_by_variable_it_does_the_same() {
    for (option, variable, value, script, check) in BOTH_WAYS {
        let word = if *value == "1" { (*option).to_owned() } else { format!("{option}={value}") };
        check(Container::init(&with(&[&word], script)));
        check(Container::init(&with(&[], script)).env(variable, value));
    }
}

#[test]
fn a_switch_whose_variable_is_0_is_off() {
    let group = Container::init(&with(&[], GROUP)).env("PID1_SIGNAL_GROUP", "0");
    assert_eq!(who_gets_usr1(group, 2), ["leader", "leader"]);
    let script = "(sleep 1000 &); exit 3";
    Container::init(&with(&[], script)).env("PID1_WAIT_ALL", "0").run_to(3);
    let quiet = Container::init(&with(&[], script)).env("PID1_VERBOSE", "0").run_to(3);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn kill_after_ends_everybody_and_gives_them_time() {
    let script = "
        trap : TERM
        setsid sh -c 'trap \"echo got TERM; exit\" TERM; echo ready; while :; do sleep 1000 & wait; done' &
        while :; do sleep 1000 & wait $!; done";
    let options = ["--kill-after=0.2", "-t0.5"];
    let mut running = Container::init(&with(&options, script)).start();
    running.expect("ready");
    running.signal(libc::SIGTERM);
    running.expect("got TERM");
    assert_eq!(running.finish().status.code(), Some(137));
}
