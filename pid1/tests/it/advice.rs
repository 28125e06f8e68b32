//! What `-v` says about containers that are put together in a way that hurts, and what it does not.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::libc;
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::container::{Container, Running, sh, with};

const SHELL_IS_FIRST: &str = "pid1: not PID 1, that is `sh`: write ENTRYPOINT in exec form, or \
    `exec` before pid1\n";

/// What pid1 has said, apart from how it went.
fn advice(said: &str) -> String {
    let is_event = |words: &str| {
        ["started ", "impatient ", "ended "].iter().any(|event| words.starts_with(event))
    };
    let is_advice = |line: &&str| line.strip_prefix("pid1: ").is_some_and(|it| !is_event(it));
    said.split_inclusive('\n').filter(is_advice).collect()
}

/// A shell by another name.
fn shell_called(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join(name);
    symlink("/bin/sh", &link).unwrap();
    (folder, link)
}

/// PID 1 is a shell called `first`, and runs pid1 with `options`.
#[track_caller]
fn check_below(first: &str, options: &str, expected: &str) {
    let (_folder, first) = shell_called(first);
    let script = format!("$PID1 {options} sh -c 'exit 3'; echo code $?");
    let outcome = Container::bare(&[first.to_str().unwrap(), "-c", &script]).run_to(0);
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("code 3\n", expected));
}

#[test]
fn a_shell_as_pid_1_is_told_to_exec() {
    check_below("sh", "-v", SHELL_IS_FIRST);
}

#[test]
fn another_init_as_pid_1_is_one_too_many() {
    for name in ["tini", "docker-init", "dumb-init", "catatonit", "podman-init", "pid1"] {
        let line =
            format!("pid1: not PID 1, that is `{name}`: one init is enough, leave out `--init`\n");
        check_below(name, "-v", &line);
    }
}

#[test]
fn a_shared_pid_namespace_is_named_by_its_first_process() {
    let line = "pid1: not PID 1, that is `server`: add --subreaper to supervise all the same\n";
    check_below("server", "-v", line);
}

#[test]
fn a_shell_that_is_not_our_parent_is_not_blamed() {
    let (_folder, parent) = shell_called("parent");
    let outer = format!("{} -c '$PID1 -v true; true'; true", parent.display());
    let said = Container::bare(&sh(&outer)).run_to(0).stderr;
    assert!(said.contains("`sh`: add --subreaper"), "{said}");
}

#[test]
fn not_being_pid_1_is_no_news_without_verbose() {
    for first in ["sh", "tini", "server"] {
        check_below(first, "", "");
    }
}

#[test]
fn who_asks_to_supervise_all_the_same_is_not_told_to() {
    for first in ["sh", "tini", "server"] {
        let (_folder, first) = shell_called(first);
        let words = [first.to_str().unwrap(), "-c", "$PID1 -v -s sh -c 'exit 3'; true"];
        assert_eq!(advice(&Container::bare(&words).run_to(0).stderr), "");
    }
}

#[test]
fn as_pid_1_there_is_nothing_to_advise() {
    for words in [with(&["-v"], "exit 3"), with(&["-vvv"], "exit 3")] {
        let said = Container::init(&words).run_to(3).stderr.replace("pid1: reaped", "pid1: ended");
        assert_eq!(advice(&said), "");
    }
}

#[test]
fn without_a_proc_of_ours_nothing_is_advised() {
    // What is under the container's own: the one outside, with other process ids.
    let uncover = || umount2(c"/proc", MntFlags::MNT_DETACH).map_err(io::Error::from);
    let words = sh("$PID1 -v sh -c 'exit 3'; echo code $?");
    let outcome = Container::bare(&words).setup(uncover).run_to(0);
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("code 3\n", ""));
}

#[test]
fn advice_that_nobody_reads_does_not_end_us() {
    let (reader, container) =
        Container::bare(&sh("$PID1 -v sh -c 'exit 3' 2>&7; echo code $?")).with_pipe_to_write();
    drop(reader);
    assert_eq!(container.run_to(0).stdout, "code 3\n");
}

#[test]
fn advice_is_json_where_the_rest_is() {
    let said = Container::bare(&sh("$PID1 -v --log=json true; true")).run_to(0).stderr;
    let message = SHELL_IS_FIRST.trim_end().trim_start_matches("pid1: ");
    let line = format!(r#"{{"program":"pid1","event":"advice","message":"{message}"}}"#);
    assert_eq!(said.trim_end(), line);
}

#[test]
fn an_init_as_the_command_is_one_too_many() {
    let (_folder, tini) = shell_called("tini");
    let tini = tini.to_str().unwrap();
    let said = |words: &[&str]| advice(&Container::init(words).run_to(3).stderr);
    let line = "pid1: `tini` is an init, too: one is enough\n";
    assert_eq!(said(&["-v", tini, "-c", "exit 3"]), line);
    assert_eq!(said(&[tini, "-c", "exit 3"]), "");
    assert_eq!(said(&["-v", "sh", "-c", "exit 3"]), "");
}

#[test]
fn under_another_name_the_advice_goes_with_its_verbosity() {
    let (_folder, tini) = shell_called("tini");
    let words = |options: &[&str]| {
        let command = [tini.to_str().unwrap(), "-c", "exit 3"];
        options.iter().chain(&command).map(ToString::to_string).collect::<Vec<_>>()
    };
    let line = "`tini` is an init, too: one is enough\n";
    let docker_init = Container::called("docker-init", &words(&["-v"])).run_to(3);
    assert!(docker_init.stderr.contains(&format!("tini: {line}")), "{docker_init:?}");
    let debug = Container::called("dumb-init", &words(&["-v"])).run_to(3);
    assert!(debug.stderr.contains(&format!("[dumb-init] {line}")), "{debug:?}");
    for name in ["docker-init", "dumb-init", "catatonit"] {
        assert_eq!(Container::called(name, &words(&[])).run_to(3).stderr, "");
    }
}

/// Waits until `cat`, with which a script goes on, is there.
#[track_caller]
fn start_with_cat(container: Container) -> Running {
    let mut running = container.stdin(Stdio::piped()).start();
    running.stdin.as_ref().unwrap().write_all(b"ready\n").unwrap();
    running.expect("ready");
    running
}

/// What is advised when `script` has had some time since a SIGTERM.
#[track_caller]
fn advice_after_term(options: &[&str], script: &str) -> String {
    let options = [&["--kill-after=0.2", "-t0.2"], options].concat();
    let running = start_with_cat(Container::init(&with(&options, script)));
    running.signal(libc::SIGTERM);
    // Its standard input stays open until it has ended.
    advice(&running.finish_by_itself().stderr)
}

/// A shell that waits for its program with what comes after it still to do, and cannot hear.
const DEAF: &str = "trap : TERM; cat; exit 3";
const DEAF_ADVICE: &str = "pid1: `sh` runs on after SIGTERM, with `cat` below it: unless it \
    hands signals on, start that with `exec`\n";

#[test]
fn a_shell_that_keeps_sigterm_to_itself_is_named_with_its_program() {
    assert_eq!(advice_after_term(&["-v"], DEAF), DEAF_ADVICE);
}

#[test]
fn a_deaf_shell_is_no_news_without_verbose() {
    assert_eq!(advice_after_term(&[], DEAF), "");
}

#[test]
fn a_script_is_known_by_its_shell() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("entrypoint.sh");
    // Written by another process: what we have open for writing cannot be run by whatever other
    // tests start meanwhile.
    let write = "printf '#!/bin/sh\\ntrap : TERM\\ncat\\nexit 3\\n' >\"$0\" && chmod +x \"$0\"";
    let status = std::process::Command::new("sh").args(["-c", write]).arg(&script).status();
    assert!(status.unwrap().success());
    let words = ["-v", "--kill-after=0.2", "-t0.2", script.to_str().unwrap()];
    let running = start_with_cat(Container::init(&words));
    running.signal(libc::SIGTERM);
    assert_eq!(advice(&running.finish_by_itself().stderr), DEAF_ADVICE);
}

#[test]
fn a_program_that_is_no_shell_is_not_blamed() {
    assert_eq!(advice_after_term(&["-v"], "trap '' TERM; exec cat"), "");
}

#[test]
fn a_shell_alone_is_not_blamed() {
    let alone = "trap : TERM; read line; echo $line; while :; do :; done";
    assert_eq!(advice_after_term(&["-v"], alone), "");
}

#[test]
fn what_the_whole_group_gets_no_shell_keeps() {
    let deaf = "trap '' TERM; cat; exit 3";
    assert_eq!(advice_after_term(&["-v"], deaf), DEAF_ADVICE);
    assert_eq!(advice_after_term(&["-v", "--signal-group"], deaf), "");
}

#[test]
fn a_deaf_shell_is_named_once_and_before_engines_lose_patience() {
    let (reader, writer) = io::pipe().unwrap();
    let running = start_with_cat(Container::init(&with(&["-v"], DEAF)).stderr(writer));
    let start = Instant::now();
    running.signal(libc::SIGTERM);
    let lines = BufReader::new(reader).lines().map(Result::unwrap);
    // A sanitizer has remarks of its own.
    let mut lines = lines.filter(|line| line.starts_with("pid1: "));
    assert!(lines.next().unwrap().starts_with("pid1: started"));
    assert_eq!(lines.next().unwrap(), DEAF_ADVICE.trim_end());
    // Docker kills after ten.
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(9), "{took:?}");
    running.signal(libc::SIGTERM);
    running.wait_until_idle();
    running.finish();
    assert_eq!(lines.next().unwrap(), "pid1: ended code=3 remaining=0 killed=0");
}

#[test]
fn a_child_that_ends_in_time_is_not_looked_at() {
    let script = "trap 'exit 3' TERM; exec 7<&0; cat <&7 & wait";
    let running = start_with_cat(Container::init(&with(&["-v"], script)));
    running.signal(libc::SIGTERM);
    assert_eq!(advice(&running.finish_by_itself().stderr), "");
}
