//! Section 1: the command line and its variables.

use std::ffi::OsString;
use std::io::Write;

use nix::libc;
use tempfile::NamedTempFile;

use crate::chance::Chance;
use crate::container::{Container, pid1, sh, with};
use crate::hard::LONG_DEADLINE;
use crate::limits::{left_out, without_remarks};

#[track_caller]
fn check_refused(arguments: &[&str], line: &str) {
    let outcome = Container::init(arguments).run_to(125);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.trim_end()), ("", line));
}

#[track_caller]
fn check_output(arguments: &[&str], output: &str) {
    let outcome = Container::init(arguments).run_to(0);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), (output, ""));
}

const OPTIONS: &str = "there are -e/--env -u/--user -g/--group -w/--workdir -t/--timeout --kill-after \
    --drain --rewrite --map-exit --signal-group --wait-all -s/--subreaper --parent-death-signal \
    -v/--verbose --log -h/--help -V/--version";

#[test]
fn no_command_says_what_usually_went_wrong() {
    let lines = "pid1: No arguments provided\n\
        pid1: an ENTRYPOINT in shell form passes none on, write ENTRYPOINT [\"/sbin/pid1\"]";
    check_refused(&[], lines);
    check_refused(&["--"], lines);
    check_refused(&["-t", "1"], lines);
}

#[test]
fn unknown_options_are_named_with_the_right_ones() {
    check_refused(&["--foo", "true"], &format!("pid1: unknown option `--foo`, {OPTIONS}"));
    check_refused(&["--foo=1", "true"], &format!("pid1: unknown option `--foo`, {OPTIONS}"));
    check_refused(&["-vx", "true"], &format!("pid1: unknown option `-x`, {OPTIONS}"));
}

#[test]
fn wrong_values_are_named_with_the_right_ones() {
    let seconds = "it takes seconds, such as 5 or 0.5";
    for value in ["", "x", "-1", "1.x", ".", "1s", "99999999999"] {
        let line = format!("pid1: cannot use `{value}` for --timeout: {seconds}");
        check_refused(&["-t", value, "true"], &line);
    }
    check_refused(
        &["--rewrite=TERM", "true"],
        "pid1: cannot use `TERM` for --rewrite: it takes FROM:TO, signals such as TERM, 15 or \
         RTMIN+3, or 0 as TO to drop FROM",
    );
    check_refused(
        &["--map-exit", "256:0", "true"],
        "pid1: cannot use `256:0` for --map-exit: it takes FROM:TO, exit codes from 0 to 255",
    );
    check_refused(
        &["-e", "NAME", "true"],
        "pid1: cannot use `NAME` for --env: it takes NAME=VALUE",
    );
    check_refused(
        &["-u", ":0", "true"],
        "pid1: cannot use `:0` for --user: it takes USER or USER:GROUP, each a name or number",
    );
    check_refused(
        &["--log=xml", "true"],
        "pid1: cannot use `xml` for --log: it takes text or json",
    );
    check_refused(
        &["--parent-death-signal", "0", "true"],
        "pid1: cannot use `0` for --parent-death-signal: it takes a signal, such as TERM, 15 or \
         RTMIN+3",
    );
}

#[test]
fn missing_and_unwanted_values_are_named() {
    check_refused(&["--user"], "pid1: --user needs USER or USER:GROUP, each a name or number");
    check_refused(&["-t"], "pid1: --timeout needs seconds, such as 5 or 0.5");
    check_refused(&["--wait-all=1", "true"], "pid1: --wait-all takes no value");
}

#[test]
fn wrong_variables_are_named_with_the_right_values() {
    for (name, value, takes) in [
        ("PID1_TIMEOUT", "soon", "seconds, such as 5 or 0.5"),
        ("PID1_WAIT_ALL", "yes", "1 or 0"),
        ("PID1_VERBOSE", "much", "a number, such as 1"),
        ("PID1_MAP_EXIT", "1:2,3", "FROM:TO, exit codes from 0 to 255"),
    ] {
        let outcome = Container::init(&["true"]).env(name, value).run_to(125);
        let line = format!("pid1: cannot use `{value}` for {name}: it takes {takes}\n");
        assert_eq!(outcome.stderr, line);
    }
}

#[test]
fn empty_variables_count_as_unset() {
    Container::init(&["true"]).env("PID1_TIMEOUT", "").env("PID1_USER", "").run_to(0);
}

#[test]
fn help_goes_to_standard_output() {
    let help = include_str!("help.txt");
    check_output(&["--help"], help);
    check_output(&["-h"], help);
    check_output(&["-vh", "true"], help);
}

#[test]
fn version_goes_to_standard_output() {
    let version = concat!("pid1 ", env!("CARGO_PKG_VERSION"), "\n");
    check_output(&["--version"], version);
    check_output(&["-V"], version);
}

#[test]
fn options_end_at_the_command() {
    check_output(&["printf", "%s ", "-e", "A=1", "--help"], "-e A=1 --help ");
    let ls = Container::init(&["ls", "-d", "/"]).run_to(0);
    assert_eq!(ls.stdout, "/\n");
    Container::init(&sh("exit 3")).run_to(3);
}

#[test]
fn two_dashes_end_the_options() {
    check_output(&["--", "echo", "--", "-v"], "-- -v\n");
    check_output(&["-t", "1", "--", "echo", "a"], "a\n");
    // Then even a word that looks like one is a command.
    Container::init(&["--", "-v"]).run_to(127);
}

#[test]
fn short_options_combine() {
    check_output(&["-st0.5", "-w/", "pwd"], "/\n");
    check_output(&["-sw", "/", "pwd"], "/\n");
    check_output(&["--workdir=/", "--timeout", ".5", "pwd"], "/\n");
}

#[test]
fn env_sets_and_replaces() {
    let arguments = with(
        &["-e", "A=1", "-eB=2", "--env=A=3", "--env", "KEPT=new", "-e", "EMPTY="],
        "echo $A $B $KEPT $OTHER [$EMPTY]; env | grep -c ^A=; env | grep -c ^KEPT=",
    );
    let outcome = Container::init(&arguments).env("KEPT", "old").env("OTHER", "same").run_to(0);
    assert_eq!(outcome.stdout, "3 2 new same []\n1\n1\n");
}

#[test]
fn many_variables_are_no_problem() {
    let mut arguments = Vec::new();
    for number in 0..5000 {
        arguments.extend(["-e".to_owned(), format!("N{number}={number}")]);
    }
    arguments.extend(sh("env | grep -c ^N"));
    assert_eq!(Container::init(&arguments).run_to(0).stdout, "5000\n");
}

#[test]
fn workdir_is_the_childs() {
    check_output(&["-w", "/usr", "pwd"], "/usr\n");
    let outcome = Container::init(&["-w", "/nosuch", "pwd"]).run_to(125);
    let line = "pid1: cannot run `pwd`: cannot change to `/nosuch`: No such file or directory\n";
    assert_eq!(outcome.stderr, line);
}

/// Binds a passwd and a group file of the test's own over the container's.
fn with_accounts(container: Container) -> Container {
    use nix::mount::{MsFlags, mount};
    let folder = tempfile::tempdir().unwrap();
    let passwd = folder.path().join("passwd");
    let group = folder.path().join("group");
    std::fs::write(&passwd, "root:x:0:0::/root:\napp:x:1000:1001::/srv/app:\n").unwrap();
    std::fs::write(&group, "root:x:0:\nstaff:x:50:app\nmain:x:1001:\nextra:x:1002:root,app\n")
        .unwrap();
    container.setup(move || {
        let bind = MsFlags::MS_BIND;
        mount(Some(&passwd), c"/etc/passwd", None::<&str>, bind, None::<&str>)?;
        mount(Some(&group), c"/etc/group", None::<&str>, bind, None::<&str>)?;
        // Lives as long as this closure.
        let _ = &folder;
        Ok(())
    })
}

const WHO: &str = "echo $(id -u) $(id -g) / $(id -G) / $HOME";

#[track_caller]
fn check_identity(options: &[&str], expected: &str) {
    let outcome = with_accounts(Container::init(&with(options, WHO))).env("HOME", "/old").run();
    assert_eq!(outcome.stdout.trim_end(), expected, "{outcome:?}");
}

#[test]
fn user_by_name_gets_uid_gid_groups_and_home() {
    if left_out("user_by_name_gets_uid_gid_groups_and_home") {
        return;
    }
    check_identity(&["-u", "app"], "1000 1001 / 1001 50 1002 / /srv/app");
}

#[test]
fn user_by_number_with_an_entry_is_that_user() {
    if left_out("user_by_number_with_an_entry_is_that_user") {
        return;
    }
    check_identity(&["--user=1000"], "1000 1001 / 1001 50 1002 / /srv/app");
}

#[test]
fn user_by_number_without_an_entry_gets_group_0_and_a_root_home() {
    if left_out("user_by_number_without_an_entry_gets_group_0_and_a_root_home") {
        return;
    }
    check_identity(&["-u", "4000"], "4000 0 / 0 / /");
}

#[test]
fn user_with_a_group_gets_no_other_group() {
    if left_out("user_with_a_group_gets_no_other_group") {
        return;
    }
    check_identity(&["-u", "app:staff"], "1000 50 / 50 / /srv/app");
    check_identity(&["-u", "1000:7"], "1000 7 / 7 / /srv/app");
}

#[test]
fn home_given_by_env_stays() {
    if left_out("home_given_by_env_stays") {
        return;
    }
    check_identity(&["-e", "HOME=/mine", "-u", "app:staff"], "1000 50 / 50 / /mine");
}

#[test]
fn group_alone_changes_the_group_only() {
    if left_out("group_alone_changes_the_group_only") {
        return;
    }
    check_identity(&["-g", "staff"], "0 50 / 50 / /old");
}

#[test]
fn group_option_beats_the_users() {
    if left_out("group_option_beats_the_users") {
        return;
    }
    check_identity(&["-u", "app:staff", "--group", "1002"], "1000 1002 / 1002 / /srv/app");
}

#[test]
fn unknown_users_and_groups_are_125() {
    let outcome = Container::init(&["-u", "nobody-here", "true"]).run_to(125);
    let line = "pid1: cannot run `true`: no user `nobody-here` in /etc/passwd\n";
    assert_eq!(outcome.stderr, line);
    let outcome = Container::init(&["-g", "nobody-here", "true"]).run_to(125);
    let line = "pid1: cannot run `true`: no group `nobody-here` in /etc/group\n";
    assert_eq!(outcome.stderr, line);
}

#[test]
fn init_keeps_its_own_user() {
    if left_out("init_keeps_its_own_user") {
        return;
    }
    let script = "grep ^Uid: /proc/1/status | tr '\\t' ' '";
    let outcome = with_accounts(Container::init(&with(&["-u", "app"], script))).run_to(0);
    assert_eq!(outcome.stdout, "Uid: 0 0 0 0\n");
}

#[test]
fn variables_do_what_options_do() {
    if left_out("variables_do_what_options_do") {
        return;
    }
    let script = format!("{WHO}; pwd");
    let container = with_accounts(Container::init(&sh(&script)));
    let container = container.env("PID1_USER", "app").env("PID1_GROUP", "staff");
    let outcome = container.env("PID1_WORKDIR", "/usr").env("PID1_TIMEOUT", "1").run_to(0);
    assert_eq!(outcome.stdout, "1000 50 / 50 / /srv/app\n/usr\n");
}

#[test]
fn options_beat_variables() {
    let outcome = Container::init(&["-w", "/usr", "pwd"]).env("PID1_WORKDIR", "/").run_to(0);
    assert_eq!(outcome.stdout, "/usr\n");
}

/// How many command lines chance makes up; an emulator takes its time over each.
const LINES: usize = 1_000;

/// A word for the shell, with whatever in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A command line of options with values, most of them right, and a command that tells what it got.
fn chance_line(chance: &mut Chance) -> Vec<String> {
    const SIDES: [&str; 14] = [
        "TERM", "sigquit", "RTMIN+3", "RTMAX-30", "15", "0", "3", "143", "255", "256", "KILL",
        "-1", "é", "",
    ];
    const PIECES: [&str; 12] =
        ["-", "--", "=", "e", "s", "t", "x", "5", "é", "A=1", "rewrite", "timeout"];
    const NAMES: [&str; 10] =
        ["app", "root", "1000", "4000", "4294967295", "staff", "50", "none", "", "0"];
    let mut words = Vec::new();
    for _ in 0..chance.below(4) {
        let sides = [chance.pick(&SIDES), chance.pick(&SIDES)].join(":");
        let names = [chance.pick(&NAMES), chance.pick(&NAMES)].join(":");
        words.push(match chance.below(10) {
            0 => format!("--rewrite={sides}"),
            1 | 2 => format!("--map-exit={sides}"),
            3 => format!("--user={names}"),
            4 => format!("-u{}", chance.pick(&NAMES)),
            5 => format!("-g{}", chance.pick(&NAMES)),
            6 => format!("--parent-death-signal={}", chance.pick(&SIDES)),
            7 => format!("-t{}", chance.text(&["0", "5", ".", "99999", "x"], 3)),
            8 => format!("-eA={}", chance.text(&PIECES, 2)),
            _ => chance.text(&PIECES, 3),
        });
    }
    if chance.below(2) == 0 {
        words.push("-s".to_owned());
    }
    words.extend(sh(&format!("echo [$A] $(id -u):$(id -G); exit {}", chance.pick(&[0, 3, 143]))));
    words
}

/// What `container`, a shell, says of each of `lines` with the init called by `$init`.
#[track_caller]
fn said_of(init: &[OsString], lines: &[Vec<String>]) -> Vec<String> {
    let mut script = NamedTempFile::new().unwrap();
    let init: Vec<_> = init.iter().map(|it| quoted(it.to_str().unwrap())).collect();
    writeln!(script, "exec 2>&1; unset PID1").unwrap();
    for line in lines {
        let words: Vec<_> = line.iter().map(|word| quoted(word)).collect();
        writeln!(script, "{} {} </dev/null; echo code $?, end", init.join(" "), words.join(" "))
            .unwrap();
    }
    let container = with_accounts(Container::bare(&["sh"])).stdin(script.reopen().unwrap());
    let container = container.deadline(LONG_DEADLINE);
    let said = without_remarks(&container.run_to(0).stdout);
    said.split_inclusive(", end\n").map(str::to_owned).collect()
}

/// The binary may be another platform's; the one beside it is this machine's, without any of what
/// makes the former small.
#[test]
fn a_thousand_command_lines_are_read_as_by_this_machines_own() {
    let mut chance = Chance::new();
    let lines: Vec<_> = (0..LINES).map(|_| chance_line(&mut chance)).collect();
    let ours = said_of(&pid1(), &lines);
    let theirs = said_of(&[env!("CARGO_BIN_EXE_pid1").into()], &lines);
    for (line, (ours, theirs)) in lines.iter().zip(ours.iter().zip(&theirs)) {
        assert_eq!(ours, theirs, "{line:?}");
    }
    assert_eq!((ours.len(), theirs.len()), (LINES, LINES));
    let ran = ours.iter().filter(|it| it.starts_with('[')).count();
    assert!(ran > LINES / 5 && ran < LINES * 4 / 5, "{ran}");
}

#[test]
fn not_first_user_and_group_are_the_commands() {
    if left_out("not_first_user_and_group_are_the_commands") {
        return;
    }
    for (options, expected) in [
        ("-u app", "1000 1001 / 1001 50 1002 / /srv/app"),
        ("-u app -g 1002", "1000 1002 / 1002 / /srv/app"),
        ("-g staff", "0 50 / 50 / /old"),
    ] {
        let script = format!("$PID1 {options} sh -c '{WHO}'; true");
        let outcome = with_accounts(Container::bare(&sh(&script))).env("HOME", "/old").run_to(0);
        assert_eq!(outcome.stdout.trim_end(), expected, "{outcome:?}");
    }
}

#[test]
fn accounts_that_cannot_be_read_are_125() {
    // What cannot even be opened, by root either.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let cover = move || {
        let bind = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(&socket), c"/etc/group", None::<&str>, bind, None::<&str>)?;
        Ok(())
    };
    let outcome = Container::init(&["-g", "staff", "true"]).setup(cover).run_to(125);
    let line = "pid1: cannot run `true`: cannot read `/etc/group`: No such device or address\n";
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("", line));
    drop(listener);
}

const CAP_SETGID: i32 = 6;
const CAP_SETUID: i32 = 7;

/// Takes a capability from all programs that will be started, root's too.
fn without_capability(container: Container, capability: i32) -> Container {
    container.setup(move || {
        // SAFETY: takes numbers.
        match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    })
}

#[test]
fn identities_that_are_refused_are_125() {
    if left_out("identities_that_are_refused_are_125") {
        return;
    }
    for (capability, what) in [(CAP_SETGID, "groups"), (CAP_SETUID, "user")] {
        let container = Container::init(&["-u", "1234:1234", "true"]);
        let outcome = without_capability(container, capability).run_to(125);
        let line =
            format!("pid1: cannot run `true`: cannot set the {what}: Operation not permitted\n");
        assert_eq!((&*outcome.stdout, &*outcome.stderr), ("", &*line));
    }
}
