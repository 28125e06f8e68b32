//! Section 5: called by another init's name, it takes that one's options and keeps its habits.

use std::process::Stdio;
use std::time::Instant;

use nix::libc;
use nix::unistd::{ForkResult, fork};

use crate::container::{Container, DEADLINE, Outcome, sh, with};
use crate::running::children;

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

/// Runs `words` after `name` as an ordinary process of a container.
fn not_first(name: &str, words: &str) -> Outcome {
    not_first_in(name, &format!("$INIT {words}; echo code $?"))
}

/// Runs `script`, in which `$INIT` is us, called `name`.
fn not_first_in(name: &str, script: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join(name);
    let mut pid1 = crate::container::pid1();
    let binary = std::path::absolute(pid1.pop().unwrap()).unwrap();
    std::os::unix::fs::symlink(binary, &link).unwrap();
    pid1.push(link.into_os_string());
    let pid1 = pid1.join(std::ffi::OsStr::new(" "));
    Container::bare(&sh(script)).env("INIT", pid1.to_str().unwrap()).run_to(0)
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
    for (name, signal) in
        [("TSTP", libc::SIGTSTP), ("TTIN", libc::SIGTTIN), ("TTOU", libc::SIGTTOU)]
    {
        check_terminal_stop(name, signal);
    }
}

#[track_caller]
fn check_terminal_stop(name: &str, signal: i32) {
    // A program cannot have a trap for what it gets instead.
    let script =
        format!("trap 'echo {name}' {name}; echo ready; while :; do sleep 1000 & wait; done");
    let mut running = Container::called("dumb-init", &sh(&script)).start();
    running.expect("ready");
    running.signal(signal);
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
    let options = ["-r", &format!("{signal}:{signal}")];
    let mut running = Container::called("dumb-init", &with(&options, &script)).start();
    running.expect("ready");
    running.signal(signal);
    running.expect(name);
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

#[test]
fn tini_adopts_orphans_by_option_or_by_variable() {
    // In a session of its own it is out of reach of who ends only the command's group.
    let until = "until pgrep -x sleep >/dev/null; do :; done";
    let words = format!("sh -c '(setsid sleep 1000 &); {until}; exit 3'; echo code $?");
    for init in ["$INIT -s", "TINI_SUBREAPER= $INIT"] {
        let outcome = not_first_in("tini", &format!("{init} {words}; pgrep -xc sleep; true"));
        assert_eq!((&*outcome.stdout, &*outcome.stderr), ("code 3\n0\n", ""), "{init}");
    }
    let outcome = not_first_in("tini", &format!("$INIT {words}; pgrep -xc sleep; true"));
    assert_eq!(outcome.stdout, "code 3\n1\n");
}

#[test]
fn tini_p_is_the_signal_for_our_parents_death() {
    let said = tempfile::NamedTempFile::new().unwrap();
    // The parent is killed; the signal is forwarded like any other.
    let child = r"trap 'echo got USR1 >\$SAID; exit' USR1; kill -KILL \$PARENT
        while :; do sleep 1000 & wait; done";
    let parent = "PARENT=$$ $INIT -s -p SIGUSR1 sh -c \"$CHILD\" & wait";
    let script = format!(
        "export SAID={} CHILD=\"{child}\"; sh -c '{parent}' & \
        until grep -q USR1 $SAID; do :; done; cat $SAID",
        said.path().display()
    );
    assert_eq!(not_first_in("tini", &script).stdout, "got USR1\n");
}

/// Every way in which one of them is not the first process.
const NOT_FIRST: [(&str, &str); 7] = [
    ("tini", ""),
    ("tini", "-s"),
    ("docker-init", "-g"),
    ("dumb-init", ""),
    ("dumb-init", "-c"),
    ("catatonit", ""),
    ("pid1", "-s"),
];

#[test]
fn not_first_they_end_nobody_but_their_own() {
    for (name, options) in NOT_FIRST {
        let script = format!(
            "sleep 1000 & other=$!
            $INIT {options} sh -c '(sleep 1000 &); exit 3' 2>/dev/null; echo code $?
            kill -0 $other && echo bystander lives"
        );
        let said = not_first_in(name, &script).stdout;
        assert_eq!(said, "code 3\nbystander lives\n", "{name} {options}");
    }
}

#[test]
fn helps_are_these() {
    let whole = |text: &str| text.replace("VERSION", VERSION);
    for name in TINIS {
        assert_eq!(check(name, &["-h"], 0).stdout, whole(include_str!("tini.txt")));
    }
    assert_eq!(check("dumb-init", &["-h"], 0).stderr, whole(include_str!("dumb-init.txt")));
    for name in CATATONITS {
        assert_eq!(check(name, &["-h"], 0).stdout, include_str!("catatonit.txt"));
    }
}

#[test]
fn catatonit_reaps_while_it_pauses() {
    let (release, container) = Container::called("catatonit", &["-P"]).with_pipe_to_read();
    let container = container.setup(|| {
        // SAFETY: between fork and exec; the child does nothing but system calls.
        if let ForkResult::Child = unsafe { fork() }? {
            let mut byte = 0u8;
            // SAFETY: closes what only the other process uses; reads into what lives here until
            // the pipe ends; does not return.
            unsafe {
                libc::syscall(libc::SYS_close_range, 0, 6, 0);
                libc::syscall(libc::SYS_close_range, 8, u32::MAX, 0);
                libc::read(7, (&raw mut byte).cast(), 1);
                libc::_exit(0)
            }
        }
        Ok(())
    });
    let running = container.start();
    running.wait_until_idle();
    assert_eq!(children(&running).len(), 1);
    drop(release);
    let deadline = Instant::now() + DEADLINE;
    while !children(&running).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", children(&running));
        std::thread::yield_now();
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.finish().status.code(), Some(0));
}
