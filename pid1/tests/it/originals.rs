//! Section 5 beside the programs themselves, where they are installed: given the same words, ours
//! under their name ends as they do, and writes where they write.

use std::ffi::OsString;
use std::fmt::Debug;
use std::iter::repeat_with;
use std::path::Path;
use std::slice::from_ref;

use crate::container::{Container, Outcome, Running, pid1_called, with};
use crate::limits::{arriving, lacks, left_out};

const TINI: &str = "tini";
const DUMB_INIT: &str = "dumb-init";
const CATATONIT: &str = "catatonit";
const ALL: [&str; 3] = [TINI, DUMB_INIT, CATATONIT];

/// Where what we do differs on purpose: program, words, reason.
const OURS_IS_BETTER: &[(&str, &[&str], &str)] = &[
    (TINI, &["-v", "--", "true"], OWN_OUTPUT),
    (TINI, &["-vvv", "--", "true"], OWN_OUTPUT),
    (TINI, &["ls", "-l", "/dev/null"], COMMANDS_OPTIONS),
    (TINI, &["ls", "-d", "/"], COMMANDS_OPTIONS),
    (TINI, &["-g", "sh", "-c", "exit 3"], COMMANDS_OPTIONS),
    (TINI, &["--version", "true"], "whoever asks for the version gets it"),
    (TINI, &["/etc/passwd/x"], "what is not there is 127, whatever part of its path is missing"),
    (TINI, &["-p", "TERM", "true"], SIGNALS),
    (TINI, &["-p", "15", "true"], SIGNALS),
    (TINI, &["-p", "SIGRTMIN", "true"], SIGNALS),
    (DUMB_INIT, &["-r", "TERM:INT", "true"], SIGNALS),
    (DUMB_INIT, &["-r", "15:34", "true"], SIGNALS),
    (DUMB_INIT, &["-r", "64:15", "true"], SIGNALS),
    (DUMB_INIT, &["-r", "9:15", "true"], "nobody can catch SIGKILL, so a rule for it is an error"),
    (DUMB_INIT, &["-r", "19:0", "true"], "nobody can catch SIGSTOP, so a rule for it is an error"),
    (DUMB_INIT, &["-r", "15:3:4", "true"], "a typing error is told, not passed over"),
    (DUMB_INIT, &["-r", "15:3x", "true"], "a typing error is told, not passed over"),
    (DUMB_INIT, &["--single", "true"], WRITTEN_OUT),
    (CATATONIT, &["--vers"], WRITTEN_OUT),
    (CATATONIT, &["-h"], "help that was asked for is output, not an error"),
    (CATATONIT, &["ls", "-d", "/"], COMMANDS_OPTIONS),
    (CATATONIT, &["sh", "-c", "exit 3"], COMMANDS_OPTIONS),
];

const OWN_OUTPUT: &str = "standard output is the command's, what init says goes to standard error";
const COMMANDS_OPTIONS: &str = "options end at the command, always";
const WRITTEN_OUT: &str = "a shortened option may turn into another with any new version";
const SIGNALS: &str = "every signal there is can be named, in every way";

/// Those of the three whose original is here, and where; of the others it is said that `test`
/// leaves them out.
fn installed(test: &str) -> Vec<(&'static str, String)> {
    let (here, absent): (Vec<_>, Vec<_>) = ALL
        .iter()
        .map(|name| (*name, format!("/usr/bin/{name}")))
        .partition(|(_, path)| Path::new(path).exists());
    for (name, _) in absent {
        lacks(test, name);
    }
    here
}

fn run(path: &str, words: &[&str]) -> Outcome {
    Container::bare(&[&[path], words].concat()).run()
}

/// What is compared: the code, which streams were written to, and of a text how it starts.
#[derive(Debug, PartialEq)]
struct Ended {
    code: Option<i32>,
    wrote: (bool, bool),
    first: Option<String>,
}

impl Ended {
    fn of(outcome: &Outcome, is_text: bool) -> Ended {
        let (stdout, stderr) = (&outcome.stdout, &outcome.stderr);
        let line = stdout.lines().chain(stderr.lines()).next().unwrap_or_default();
        Ended {
            code: outcome.status.code(),
            wrote: (!stdout.is_empty(), !stderr.is_empty()),
            first: is_text.then(|| shape(line)),
        }
    }
}

/// `line` without what may differ: the version, and where the program is.
fn shape(line: &str) -> String {
    let line = line.split(" - git.").next().expect("split gives one at least");
    let line = line.replace("/usr/bin/", "");
    let word = |word: &str| {
        let bare = word.trim_end_matches(')').trim_start_matches('v');
        let is_version = bare.starts_with(|it: char| it.is_ascii_digit()) && bare.contains('.');
        if is_version { word.replace(bare, "VERSION") } else { word.to_owned() }
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn both(name: &'static str, path: &str, words: &[&str], is_text: bool) -> (Ended, Ended) {
    let ours = Container::called(name, words).run();
    (Ended::of(&ours, is_text), Ended::of(&run(path, words), is_text))
}

#[track_caller]
fn same<T: PartialEq + Debug>(case: impl Debug, ours: &T, theirs: &T) {
    assert_eq!(ours, theirs, "left ours, right the original, for {case:?}");
}

#[track_caller]
fn check(test: &str, cases: &[(&str, &[&str])], is_text: bool) {
    for (name, path) in installed(test) {
        for (_, words) in cases.iter().filter(|case| case.0 == name) {
            let (ours, theirs) = both(name, &path, words, is_text);
            same((name, words), &ours, &theirs);
        }
    }
}

#[test]
fn texts_have_the_originals_shape() {
    let cases: &[(&str, &[&str])] = &[
        (TINI, &["-h"]),
        (TINI, &["-hx"]),
        (TINI, &["--version"]),
        (TINI, &[]),
        (TINI, &["--"]),
        (TINI, &["-g"]),
        (DUMB_INIT, &["-h"]),
        (DUMB_INIT, &["--help"]),
        (DUMB_INIT, &["-V"]),
        (DUMB_INIT, &["--version", "true"]),
        (DUMB_INIT, &[]),
        (DUMB_INIT, &["--"]),
        (DUMB_INIT, &["-c"]),
        (CATATONIT, &["-V"]),
        (CATATONIT, &["--version"]),
        (CATATONIT, &["-gV"]),
    ];
    check("texts_have_the_originals_shape", cases, true);
}

#[test]
fn command_lines_end_as_with_the_originals() {
    let cases: &[(&str, &[&str])] = &[
        (TINI, &["-l"]),
        (TINI, &["-s", "true"]),
        (TINI, &["-sgw", "true"]),
        (TINI, &["-e", "3", "--", "sh", "-c", "exit 3"]),
        (TINI, &["-e3", "-e", "4", "--", "sh", "-c", "exit 4"]),
        (TINI, &["-e", "3", "--", "sh", "-c", "exit 4"]),
        (TINI, &["-e", "143", "--", "sh", "-c", "kill $$"]),
        (TINI, &["-e", "0", "false"]),
        (TINI, &["-e", "03", "false"]),
        (TINI, &["-e", "255", "true"]),
        (TINI, &["-e", "256", "true"]),
        (TINI, &["-e", "-1", "true"]),
        (TINI, &["-e", "x", "true"]),
        (TINI, &["-e"]),
        (TINI, &["-p", "SIGTERM", "true"]),
        (TINI, &["-p", "SIGKILL", "true"]),
        (TINI, &["-p", "SIGFOO", "true"]),
        (TINI, &["-p"]),
        (TINI, &["-V"]),
        (TINI, &["--help"]),
        (DUMB_INIT, &["-c", "true"]),
        (DUMB_INIT, &["-cv", "true"]),
        (DUMB_INIT, &["--verbose", "true"]),
        (DUMB_INIT, &["--single-child", "sh", "-c", "exit 3"]),
        (DUMB_INIT, &["--single-child=x", "true"]),
        (DUMB_INIT, &["-r", "15:3", "true"]),
        (DUMB_INIT, &["-r15:3", "--rewrite=1:0", "--rewrite", "2:9", "true"]),
        (DUMB_INIT, &["-r", "31:31", "true"]),
        (DUMB_INIT, &["-r", "15", "true"]),
        (DUMB_INIT, &["-r", "0:1", "true"]),
        (DUMB_INIT, &["-r", "15:-1", "true"]),
        (DUMB_INIT, &["-r"]),
        (DUMB_INIT, &["--rewrite"]),
        (DUMB_INIT, &["-Q", "true"]),
        (DUMB_INIT, &["--nope", "true"]),
        (CATATONIT, &["-L"]),
        (CATATONIT, &["-g", "true"]),
        (CATATONIT, &["-g"]),
        (CATATONIT, &["--"]),
        (CATATONIT, &[]),
        (CATATONIT, &["-Q"]),
        (CATATONIT, &["--help"]),
    ];
    check("command_lines_end_as_with_the_originals", cases, false);
}

#[test]
fn commands_end_as_under_the_originals() {
    let test = "commands_end_as_under_the_originals";
    let last = arriving(test, std::iter::once(LAST)).into_iter().map(|it| format!("kill -{it} $$"));
    let scripts = [
        "exit 0",
        "exit 3",
        "exit 255",
        "kill -9 $$",
        "kill $$",
        "kill -SEGV $$",
        "echo out; echo err >&2",
        "(sleep 1000 &); exit 5",
    ];
    let scripts: Vec<_> = scripts.map(str::to_owned).into_iter().chain(last).collect();
    for (name, path) in installed(test) {
        for script in &scripts {
            let words = ["--", "sh", "-c", script];
            let (ours, theirs) = (Container::called(name, &words).run(), run(&path, &words));
            let ended = |it: Outcome| (it.status.code(), it.stdout, it.stderr);
            same((name, script), &ended(ours), &ended(theirs));
        }
        for missing in ["no-such", "./no-such", "/etc", "/etc/passwd", "-", ""] {
            let (ours, theirs) = both(name, &path, &["--", missing], false);
            same((name, missing), &ours, &theirs);
        }
    }
}

#[test]
fn what_is_better_than_the_originals_is_known() {
    for (name, path) in installed("what_is_better_than_the_originals_is_known") {
        for (_, words, reason) in OURS_IS_BETTER.iter().filter(|case| case.0 == name) {
            let ours = Container::called(name, words).run();
            let theirs = run(&path, words);
            let ended = |it: &Outcome| (it.status.code(), it.stdout.clone());
            assert_ne!(ended(&ours), ended(&theirs), "{name} {words:?}, no longer: {reason}");
        }
    }
}

#[test]
fn variables_do_what_they_do_in_the_originals() {
    let session = "set -- $(cat /proc/$$/stat); [ $1 = $6 ] && echo leads || echo follows";
    let cases = [
        (TINI, "TINI_VERBOSITY", "0", "exit 3"),
        (TINI, "TINI_KILL_PROCESS_GROUP", "", "exit 3"),
        (TINI, "TINI_SUBREAPER", "", "exit 3"),
        (DUMB_INIT, "DUMB_INIT_SETSID", "0", session),
        (DUMB_INIT, "DUMB_INIT_SETSID", "1", session),
        (DUMB_INIT, "DUMB_INIT_SETSID", "", session),
        (DUMB_INIT, "DUMB_INIT_DEBUG", "1", "exit 3"),
        (DUMB_INIT, "DUMB_INIT_DEBUG", "0", "exit 3"),
        (CATATONIT, "CATATONIT_DEBUG", "1", "exit 3"),
    ];
    for (name, path) in installed("variables_do_what_they_do_in_the_originals") {
        for (_, variable, value, script) in cases.iter().filter(|case| case.0 == name) {
            let seen = |container: Container| {
                let outcome = container.env(variable, value).run();
                (outcome.status.code(), outcome.stdout, outcome.stderr.is_empty())
            };
            let words = ["--", "sh", "-c", script];
            let ours = seen(Container::called(name, &words));
            let theirs = seen(Container::bare(&[&[path.as_str()], &words[..]].concat()));
            same((name, variable, value), &ours, &theirs);
        }
    }
}

/// Sent after all others: the highest number is the last to be taken and forwarded.
const LAST: i32 = 64;

/// What init may be sent: not what cannot be caught, nor SIGCHLD, nor what tini or catatonit leave
/// alone: the seven signals of faults, and those of terminals.
fn forwarded() -> impl Iterator<Item = i32> {
    (1..32)
        .filter(|it| ![4, 5, 6, 7, 8, 9, 11, 17, 19, 20, 21, 22, 31].contains(it))
        .chain(34..LAST)
}

/// The numbers of the signals that the command sees of those, sorted.
fn seen_by_the_command(container: Container) -> Vec<i32> {
    let mut running = container.start();
    running.expect("ready");
    forwarded().chain([LAST]).for_each(|signal| running.signal(signal));
    let mut seen = until_last(&mut running);
    // The shell may have looked whether the others have come just before they did.
    running.signal(LAST);
    seen.extend(until_last(&mut running));
    running.destroy();
    seen.sort_unstable();
    seen
}

fn until_last(running: &mut Running) -> Vec<i32> {
    let next = || running.line().parse().expect("a number");
    repeat_with(next).take_while(|it| *it != LAST).collect()
}

#[test]
fn what_the_originals_forward_we_forward() {
    if left_out("what_the_originals_forward_we_forward") {
        return;
    }
    let script = format!(
        "n=1; while [ $n -le {LAST} ]; do trap \"echo $n\" $n 2>/dev/null; n=$((n + 1)); done
        trap - CHLD; echo ready; while :; do sleep 1000 & wait; done"
    );
    let script = ["sh", "-c", &script];
    let expected: Vec<i32> = forwarded().collect();
    for (name, path) in installed("what_the_originals_forward_we_forward") {
        let words = [&["--"][..], &script].concat();
        let theirs = seen_by_the_command(Container::bare(&[&[path.as_str()], &words[..]].concat()));
        same(name, &seen_by_the_command(Container::called(name, &words)), &theirs);
        assert_eq!(theirs, expected, "of {name}");
    }
}

/// Two processes of the command's group that say when they get a signal.
const GROUP: &str = "
    (trap 'echo member' USR1; echo ready; while :; do sleep 1000 & wait; done) &
    trap 'echo leader' USR1; echo ready
    while :; do sleep 1000 & wait; done";

/// The first two who say that they got USR1, which is sent again when the first has said so and it
/// is not for both.
fn reached(container: Container, is_for_both: bool) -> [String; 2] {
    let mut running = container.start();
    running.expect("ready");
    running.expect("ready");
    running.signal(nix::libc::SIGUSR1);
    let first = running.line();
    if !is_for_both {
        running.signal(nix::libc::SIGUSR1);
    }
    let mut both = [first, running.line()];
    running.destroy();
    both.sort();
    both
}

#[test]
fn whom_the_originals_signal_we_signal() {
    let cases: &[(&str, &[&str], bool)] = &[
        (TINI, &["--"], false),
        (TINI, &["-g", "--"], true),
        (DUMB_INIT, &["--"], true),
        (DUMB_INIT, &["-c", "--"], false),
        (CATATONIT, &["--"], false),
        (CATATONIT, &["-g", "--"], true),
    ];
    for (name, path) in installed("whom_the_originals_signal_we_signal") {
        for (_, options, both) in cases.iter().filter(|case| case.0 == name) {
            let words = with(options, GROUP);
            let theirs = Container::bare(&[from_ref(&path), &words].concat());
            let theirs = reached(theirs, *both);
            same((name, options), &reached(Container::called(name, &words), *both), &theirs);
            assert_eq!(theirs, ["leader", if *both { "member" } else { "leader" }], "of {name}");
        }
    }
}

#[test]
fn not_first_we_end_as_the_originals() {
    for (name, path) in installed("not_first_we_end_as_the_originals") {
        for script in ["exit 3", "kill $$", "exec no-such"] {
            let outer = r#""$@" -- sh -c "$0"; echo code $?"#;
            let folder = tempfile::tempdir().unwrap();
            let ended = |init: Vec<OsString>| {
                let words = ["sh", "-c", outer, script].map(OsString::from);
                let outcome = Container::bare(&[&words[..], &init].concat()).run_to(0);
                (outcome.stdout, outcome.stderr.is_empty())
            };
            let ours = ended(pid1_called(name, &folder));
            same((name, script), &ours, &ended(vec![path.clone().into()]));
        }
    }
}

#[test]
fn not_first_dumb_init_stops_as_the_original() {
    // Whatever becomes of the signal. The child's name shows that init is ready for it.
    let outer = r#""$@" sleep 1000 & init=$!
        until pgrep -xP $init sleep > /dev/null; do :; done
        kill -TSTP $init; until grep -q "State:.T" /proc/$init/status; do :; done; echo stopped"#;
    let cases: &[&[&str]] = &[&[], &["-c"], &["-r", "20:0"], &["-r", "20:10", "-c"]];
    for path in installed("not_first_dumb_init_stops_as_the_original")
        .into_iter()
        .filter_map(|(name, path)| (name == DUMB_INIT).then_some(path))
    {
        let folder = tempfile::tempdir().unwrap();
        for options in cases {
            for init in [pid1_called(DUMB_INIT, &folder), vec![path.clone().into()]] {
                let words = ["sh", "-c", outer, "sh"].map(OsString::from);
                let options = options.iter().map(OsString::from);
                let words: Vec<_> = words.into_iter().chain(init).chain(options).collect();
                assert_eq!(Container::bare(&words).run_to(0).stdout, "stopped\n");
            }
            std::fs::remove_file(folder.path().join(DUMB_INIT)).unwrap();
        }
    }
}
