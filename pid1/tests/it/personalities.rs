//! Section 5: called by another init's name, it takes that one's options and keeps its habits.

use std::process::Stdio;

use nix::libc;

use crate::container::{Container, Outcome, sh, with};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const TINIS: [&str; 3] = ["tini", "tini-static", "docker-init"];
const CATATONITS: [&str; 2] = ["catatonit", "podman-init"];

#[track_caller]
fn check(name: &str, arguments: &[&str], code: i32) -> Outcome {
    Container::called(name, arguments).run_to(code)
}

#[track_caller]
fn check_script(name: &str, options: &[&str], script: &str, code: i32) -> Outcome {
    Container::called(name, &with(options, script)).run_to(code)
}

/// Runs `words`, which start with `name`, as an ordinary process of a container.
fn not_first(name: &str, words: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join(name);
    let mut pid1 = crate::container::pid1();
    let binary = std::path::absolute(pid1.pop().unwrap()).unwrap();
    std::os::unix::fs::symlink(binary, &link).unwrap();
    pid1.push(link.into_os_string());
    let pid1 = pid1.join(std::ffi::OsStr::new(" "));
    let outer = format!("{} {words}; echo code $?", pid1.to_str().unwrap());
    Container::bare(&sh(&outer)).run_to(0)
}

#[test]
fn every_name_is_an_init() {
    for name in TINIS.iter().chain(&CATATONITS).chain(&["dumb-init", "pid1", "init"]) {
        check_script(name, &[], "exit 3", 3);
        check_script(name, &["--"], "kill $$", 143);
    }
}

#[test]
fn tini_version_is_what_docker_info_reads() {
    for name in TINIS {
        let version = check(name, &["--version"], 0).stdout;
        assert!(version.starts_with(&format!("tini version {VERSION}_pid1 - git.")), "{version}");
        assert_eq!(version.trim_end().split('.').count(), 4, "one point after git: {version}");
    }
}

#[test]
fn tini_help_and_licence_go_to_standard_output() {
    let help = check("tini", &["-h"], 0);
    assert!(help.stdout.contains("Usage: tini [OPTIONS] PROGRAM -- [ARGS] | --version"));
    assert!(help.stdout.starts_with(&format!("tini (tini version {VERSION}_pid1)\n")));
    assert!(check("tini", &["-l"], 0).stdout.contains("MIT License"));
    assert_eq!(check("tini", &[], 1).stderr, help.stdout);
}

#[test]
fn tini_exit_codes() {
    check("tini", &["no-such"], 127);
    check("tini", &["/etc"], 126);
    let refused = check("tini", &["-Z", "true"], 1);
    let line = "tini: unknown option `-Z`, there are -s -p -v -w -g -e -l -h --version\n";
    assert!(refused.stderr.starts_with(line), "{}", refused.stderr);
    assert!(check("tini", &["-e", "256", "true"], 1).stderr.contains("`256`"));
    assert!(check("tini", &["-p", "FOO", "true"], 1).stderr.contains("`FOO`"));
}

#[test]
fn tini_e_makes_a_code_0() {
    check_script("tini", &["-e", "143"], "kill $$", 0);
    check_script("tini", &["-e143", "-e", "3"], "exit 3", 0);
    check_script("tini", &["-e", "143"], "exit 3", 3);
}

#[test]
fn tini_options_end_at_the_command() {
    assert_eq!(check("tini", &["ls", "-d", "/"], 0).stdout, "/\n");
    assert_eq!(check("catatonit", &["ls", "-d", "/"], 0).stdout, "/\n");
}

/// Two processes of the child's group that say what they get.
const GROUP: &str = "
    (trap 'echo member' USR1; echo ready; while :; do sleep 1000 & wait; done) &
    trap 'echo leader' USR1; echo ready
    while :; do sleep 1000 & wait; done";

#[track_caller]
fn check_group(container: Container, expected: &[&str]) {
    let mut running = container.start();
    running.expect("ready");
    running.expect("ready");
    running.signal(libc::SIGUSR1);
    let mut lines: Vec<_> = expected.iter().map(|_| running.line()).collect();
    lines.sort();
    assert_eq!(lines, expected);
    running.destroy();
}

#[test]
fn who_is_signalled() {
    let both = ["leader", "member"];
    check_group(Container::called("tini", &with(&["-g"], GROUP)), &both);
    let by_variable = Container::called("tini", &sh(GROUP)).env("TINI_KILL_PROCESS_GROUP", "");
    check_group(by_variable, &both);
    check_group(Container::called("tini", &sh(GROUP)), &["leader"]);
    check_group(Container::called("catatonit", &with(&["-g"], GROUP)), &both);
    check_group(Container::called("catatonit", &sh(GROUP)), &["leader"]);
    check_group(Container::called("dumb-init", &sh(GROUP)), &both);
    check_group(Container::called("dumb-init", &with(&["-c"], GROUP)), &["leader"]);
    let by_variable = Container::called("dumb-init", &sh(GROUP)).env("DUMB_INIT_SETSID", "0");
    check_group(by_variable, &["leader"]);
    let other_value = Container::called("dumb-init", &sh(GROUP)).env("DUMB_INIT_SETSID", "1");
    check_group(other_value, &both);
}

#[test]
fn tini_says_more_when_asked() {
    assert_eq!(check_script("tini", &[], "exit 0", 0).stderr, "");
    let verbose = check_script("tini", &["-v"], "exit 0", 0).stderr;
    assert!(verbose.starts_with("tini: started pid="), "{verbose}");
    let container = Container::called("tini", &sh("exit 0")).env("TINI_VERBOSITY", "2");
    assert_eq!(container.run_to(0).stderr, verbose);
    let quiet = Container::called("tini", &sh("exit 0")).env("TINI_VERBOSITY", "0");
    assert_eq!(quiet.run_to(0).stderr, "");
}

#[test]
fn tini_w_says_when_an_orphan_is_reaped() {
    let script = "(sleep 0 &); while pgrep -x sleep >/dev/null; do :; done; exit 0";
    let outcome = check_script("tini", &["-w"], script, 0);
    assert!(outcome.stderr.contains("tini: reaped pid="), "{outcome:?}");
}

#[test]
fn tini_not_first_supervises_and_warns() {
    let outcome = not_first("tini", "sh -c '[ $PPID = 1 ] || echo supervised; exit 3'");
    assert_eq!(outcome.stdout, "supervised\ncode 3\n");
    assert!(outcome.stderr.starts_with("tini: not PID 1 and no subreaper (-s)"), "{outcome:?}");
    let quiet = not_first("tini", "-s sh -c 'exit 3'");
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("code 3\n", ""));
}

#[test]
fn dumb_init_help_and_version_go_to_standard_error() {
    let version = check("dumb-init", &["-V"], 0);
    assert_eq!(version.stderr, format!("dumb-init v{VERSION}_pid1\n"));
    assert_eq!(version.stdout, "");
    let help = check("dumb-init", &["--help"], 0);
    assert!(help.stderr.contains("Usage: dumb-init [option] command [[arg] ...]"));
    let usage = "Usage: dumb-init [option] program [args]\nTry dumb-init --help for full usage.\n";
    assert_eq!(check("dumb-init", &[], 1).stderr, usage);
}

#[test]
fn dumb_init_exit_codes() {
    assert!(check("dumb-init", &["no-such"], 2).stderr.starts_with("[dumb-init] "));
    check("dumb-init", &["/etc"], 2);
    check("dumb-init", &["-Z", "true"], 1);
    check("dumb-init", &["-r", "99:1", "true"], 1);
}

#[test]
fn dumb_init_child_leads_a_session_unless_told_not_to() {
    let script = "set -- $(cat /proc/$$/stat); [ $1 = $6 ] && echo leads || echo follows";
    assert_eq!(check_script("dumb-init", &[], script, 0).stdout, "leads\n");
    assert_eq!(check_script("dumb-init", &["--single-child"], script, 0).stdout, "follows\n");
}

#[test]
fn dumb_init_works_in_the_root_directory() {
    let script = "while [ $(readlink /proc/1/cwd) != / ]; do :; done; pwd";
    let container = Container::called("dumb-init", &sh(script));
    let container = container.setup(|| nix::unistd::chdir(c"/usr").map_err(Into::into));
    assert_eq!(container.run_to(0).stdout, "/usr\n");
}

#[test]
fn dumb_init_rewrites() {
    let script = "trap 'echo QUIT' QUIT; echo ready; while :; do sleep 1000 & wait; done";
    for options in [&["-r", "15:3"][..], &["--rewrite=15:3"], &["--rewrite", "15:3", "-r", "1:0"]] {
        let mut running = Container::called("dumb-init", &with(options, script)).start();
        running.expect("ready");
        running.signal(libc::SIGHUP * i32::from(options.len() > 2));
        running.signal(libc::SIGTERM);
        running.expect("QUIT");
        running.destroy();
    }
}

#[test]
fn dumb_init_makes_terminal_stops_real() {
    // A program cannot have a trap for what it gets instead.
    let script = "trap 'echo TSTP' TSTP; echo ready; while :; do sleep 1000 & wait; done";
    let mut running = Container::called("dumb-init", &sh(script)).start();
    running.expect("ready");
    running.signal(libc::SIGTSTP);
    let stopped = || {
        let children = format!("/proc/{0}/task/{0}/children", running.init);
        let child = std::fs::read_to_string(children).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap();
        stat.contains(") T ")
    };
    while !stopped() {
        std::thread::yield_now();
    }
    running.destroy();
    // Unless it is rewritten: then it comes as that.
    let options = ["-r", "20:20"];
    let mut running = Container::called("dumb-init", &with(&options, script)).start();
    running.expect("ready");
    running.signal(libc::SIGTSTP);
    running.expect("TSTP");
    running.destroy();
}

#[test]
fn dumb_init_keeps_a_rule_that_comes_before_single_child() {
    let script = "trap 'echo QUIT' QUIT; echo ready; while :; do sleep 1000 & wait; done";
    for options in [["-r", "20:3", "-c"], ["-c", "-r", "20:3"]] {
        let mut running = Container::called("dumb-init", &with(&options, script)).start();
        running.expect("ready");
        running.signal(libc::SIGTSTP);
        running.expect("QUIT");
        running.destroy();
    }
}

#[test]
fn dumb_init_not_first_supervises_and_ends_the_group() {
    let script = "[ $PPID = 1 ] || echo supervised; \
        (trap \"echo got TERM; exit\" TERM; touch $0; while :; do sleep 1000 & wait; done) & \
        while [ ! -e $0 ]; do :; done; exit 3";
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("flag");
    let outcome = not_first("dumb-init", &format!("sh -c '{script}' {}", flag.display()));
    assert_eq!(outcome.stdout, "supervised\ngot TERM\ncode 3\n");
    assert_eq!(outcome.stderr, "");
}

#[test]
fn dumb_init_stops_with_its_child_where_it_is_not_first() {
    let words = "sleep 1000 & init=$!; \
        while ! pgrep -P $init -x sleep >/dev/null; do :; done; kill -TSTP $init; \
        while ! grep -q 'State:.T' /proc/$init/status; do :; done; echo stopped; \
        kill -CONT $init; kill -TERM $init; wait $init";
    assert_eq!(not_first("dumb-init", words).stdout, "stopped\ncode 143\n");
}

#[test]
fn dumb_init_debug_has_its_prefix() {
    let container = Container::called("dumb-init", &sh("exit 0")).env("DUMB_INIT_DEBUG", "1");
    let outcome = container.run_to(0);
    assert!(outcome.stderr.lines().all(|line| line.starts_with("[dumb-init] ")), "{outcome:?}");
    assert_ne!(outcome.stderr, "");
    let off = Container::called("dumb-init", &sh("exit 0")).env("DUMB_INIT_DEBUG", "0");
    assert_eq!(off.run_to(0).stderr, "");
}

#[test]
fn catatonit_version_help_and_exit_codes() {
    for name in CATATONITS {
        let version = format!("tini version {VERSION}_pid1\n");
        assert_eq!(check(name, &["-V"], 0).stdout, version);
        assert_eq!(check(name, &["--version"], 0).stdout, version);
        let usage = "usage: catatonit [-ghLPV] [--] <progname> [<arguments>...]\n";
        assert!(check(name, &["-h"], 0).stdout.starts_with(usage));
        assert!(check(name, &["-L"], 0).stdout.contains("MIT License"));
        let missing = format!("catatonit: missing program name\n{usage}");
        assert_eq!(check(name, &[], 1).stderr, missing);
        check(name, &["no-such"], 1);
        check(name, &["/etc"], 1);
        assert!(check(name, &["-Z"], 1).stderr.ends_with(usage));
    }
}

#[test]
fn catatonit_pauses_until_told_to_end() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let container = Container::called("catatonit", &["-P"]).stdin(Stdio::null());
        let running = container.start();
        running.wait_until_idle();
        // Neither of these ends it.
        running.signal(libc::SIGHUP);
        running.signal(libc::SIGUSR1);
        running.signal(signal);
        assert_eq!(running.finish().status.code(), Some(0));
    }
}

#[test]
fn catatonit_not_first_is_a_subreaper() {
    let words = "sh -c '(setsid sleep 1000 &); exit 3'; echo code $?; pgrep -xc sleep";
    let outcome = not_first("catatonit", words);
    assert!(outcome.stdout.starts_with("code 3\n0\n"), "{outcome:?}");
}

#[test]
fn catatonit_debugs_by_variable() {
    let container = Container::called("catatonit", &sh("exit 0")).env("CATATONIT_DEBUG", "1");
    assert!(container.run_to(0).stderr.starts_with("catatonit: started pid="));
}
