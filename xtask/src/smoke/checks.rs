//! What must be true of every image on every platform, as data.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Result;
use nix::libc::{self, SIGKILL, SIGTERM, SIGUSR1};

use super::check::Check;
use super::container::{Cue, Deed, Run};
use super::looks;
use super::place::Place;
use super::sandbox::PROBE;
use crate::definition::Smoke;
use crate::process::Interrupt;
use crate::spec::ENTRYPOINT;

/// A real-time signal, as musl counts them: its first three are taken.
const REAL_TIME: i32 = 37;

/// An ordinary user, which distroless calls nonroot.
const NONROOT: &str = "65532:65532";

/// The signals that are not real-time ones.
const ORDINARY: RangeInclusive<i32> = 1..=31;

/// Nobody can hold these back, and the third is what tells an init of its children.
const NOT_FORWARDED: [i32; 3] = [SIGKILL, libc::SIGSTOP, libc::SIGCHLD];

/// What an emulator takes for faults and aborts of its own.
const LOST_IN_EMULATORS: [i32; 5] =
    [libc::SIGABRT, libc::SIGILL, libc::SIGBUS, libc::SIGFPE, libc::SIGSEGV];

/// `docker stop` of these ends within a second, most of which is docker's own; on a busy machine it
/// takes longer, and that says nothing of pid1. Where nobody hears the SIGTERM it is 10 s.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Where people expect programs, if an image has any.
pub const EXPECTED: [&str; 2] = ["/bin/echo", "/bin/sh"];

/// Where it runs, as far as that decides what can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// There is no user but one.
    pub only_us: bool,
    /// The processor is another, through an emulator.
    pub is_emulated: bool,
    /// It is an engine, not the sandbox.
    pub is_engine: bool,
    /// Which of [`EXPECTED`] the image has.
    pub programs: Vec<&'static str>,
}

/// All checks of one image: those of every image, then its definition's own.
pub fn all(own: &[Smoke], surroundings: &Surroundings) -> Vec<Check> {
    let mut checks = exit_codes();
    checks.extend(supervision(surroundings));
    checks.extend(ending());
    checks.extend(options(surroundings));
    checks.extend(personalities());
    checks.extend(circumstances());
    checks.extend(conventions(surroundings));
    if surroundings.is_engine {
        checks.extend(engine());
    }
    checks.extend(own.iter().map(Check::of));
    checks
}

fn probe(words: &str) -> Run {
    let words: Vec<_> = [PROBE, "probe"].into_iter().chain(words.split(' ')).collect();
    Run::new(&words)
}

/// The probe, started by a pid1 that is given `options`.
fn given(options: &str, words: &str) -> Run {
    let options = options.split(' ').map(str::to_string);
    Run { arguments: options.chain(probe(words).arguments).collect(), ..Run::default() }
}

/// The probe, started by a pid1 that has the variable.
fn having(variable: &str, words: &str) -> Run {
    Run { environment: vec![variable.to_string()], ..probe(words) }
}

/// The probe makes something of itself, and then becomes pid1 with these arguments.
fn through(wrapper: &str, arguments: Run) -> Run {
    let wrapper = [PROBE, "probe"].into_iter().chain(wrapper.split(' ')).chain(ENTRYPOINT);
    Run { entrypoint: Some(wrapper.map(str::to_string).collect()), ..arguments }
}

/// `run`, sent `signal` from outside when it has printed `cue`.
fn signalled(cue: &str, signal: i32, run: Run) -> Run {
    Run { then: Some((Cue::Printed(cue.to_string()), Deed::Signal(signal))), ..run }
}

fn exit_codes() -> Vec<Check> {
    vec![
        Check::new("success is 0", probe("exit 0")),
        Check::new("an exit code passes through", probe("exit 42")).exits(42),
        Check::new("a missing program is 127", Run::new(&["no-such-program"]))
            .exits(127)
            .complains("pid1: cannot run `no-such-program`"),
        Check::new("what is no program is 126", Run::new(&["/proc"])).exits(126),
        Check::new("SIGTERM is 143", probe(&format!("die {SIGTERM}"))).exits(128 + SIGTERM),
        Check::new(
            "without an init SIGTERM does nothing",
            probe(&format!("die {SIGTERM}")).without_init(),
        )
        .exits(1)
        .complains("did nothing"),
        Check::new("SIGKILL is 137", probe(&format!("die {SIGKILL}"))).exits(128 + SIGKILL),
        Check::new("a real-time signal is 128 + its number", probe(&format!("die {REAL_TIME}")))
            .exits(128 + REAL_TIME),
        Check::new("an entrypoint in shell form is explained", shell_form())
            .exits(125)
            .complains("pid1: No arguments provided\n"),
    ]
}

/// What Docker makes of `ENTRYPOINT /sbin/pid1`. Where the image has no shell, the probe knows as
/// much of one as this takes.
fn shell_form() -> Run {
    let entrypoint = ["/bin/sh", "-c", "/sbin/pid1"].map(str::to_string);
    Run { entrypoint: Some(entrypoint.to_vec()), ..Run::default() }
}

fn supervision(surroundings: &Surroundings) -> Vec<Check> {
    let came = format!("ready\n{SIGTERM} came\n");
    let stopped = signalled("ready", SIGTERM, probe(&format!("wait {SIGTERM}")));
    let is_lost = |it: &i32| surroundings.is_emulated && LOST_IN_EMULATORS.contains(it);
    let signals = ORDINARY.filter(|it| !NOT_FORWARDED.contains(it) && !is_lost(it));
    let signals: Vec<_> = signals.map(|it| it.to_string()).collect();
    vec![
        Check::new("pid1 is PID 1", probe("parent")).prints("1\n"),
        Check::new("without it, the program is", probe("parent").without_init()).prints("0\n"),
        Check::new("every signal is forwarded", probe(&format!("forwarded {}", signals.join(" ")))),
        Check::new("a real-time signal is forwarded", probe(&format!("forwarded {REAL_TIME}"))),
        Check::new("SIGTERM from outside is forwarded", stopped).prints(&came),
        Check::new("orphans are reaped", probe("orphans 3")).prints("0 zombies\n"),
        Check::new("without an init they are not", probe("orphans 3").without_init())
            .prints("3 zombies\n"),
        Check::new("a second pid1 becomes its command", given("/sbin/pid1", "parent"))
            .prints("1\n"),
        Check::new(
            "as a subreaper it does not",
            given("--wait-all /sbin/pid1 -s --wait-all", "late"),
        )
        .prints("left to the init above\n"),
        Check::new("SIGCHLD may have been ignored", through("ignoring-children", probe("exit 42")))
            .exits(42),
        Check::new("stdin may be closed", through("without-stdin", probe("exit 42"))).exits(42),
        Check::new("all three may be closed", through("without-stdio", probe("exit 42"))).exits(42),
    ]
}

fn ending() -> Vec<Check> {
    vec![
        Check::new("what is left may end in peace", probe("grace 2"))
            .prints("Got a TERM\nGot a TERM\n"),
        Check::new("without an init it may not", probe("grace 2").without_init()).prints(""),
        // Once, emulated, it said nothing, and nobody knows why: if it happens again, this tells.
        Check::new("so may what has stopped", given("-vvv", "stopped")).prints("Got a TERM\n"),
        Check::new("without an init it may not either", probe("stopped").without_init()).prints(""),
        Check::new("so may another session", probe("session")).prints("Got a TERM\n"),
        Check::new("without an init that may not", probe("session").without_init()).prints(""),
        Check::new("what will not end is killed", given("-v --timeout 0.1", "stubborn"))
            .complains("1 killed"),
    ]
}

fn options(surroundings: &Surroundings) -> Vec<Check> {
    let rewritten = format!("rewritten {SIGTERM} {SIGUSR1}");
    let hang = signalled("ready", SIGTERM, given("--kill-after 0.1", "hang"));
    let mut checks = vec![
        Check::new("--env", Run::new(&["--env", "A=b", PROBE, "env", "A"])).prints("A=b\n"),
        Check::new("options end at the command", Run::new(&[PROBE, "echo", "-e", "--help"]))
            .prints("-e --help\n"),
        Check::new("--workdir", given("--workdir /proc", "directory")).prints("/proc\n"),
        Check::new("PID1_WORKDIR", having("PID1_WORKDIR=/proc", "directory")).prints("/proc\n"),
        Check::new("--rewrite", given("--rewrite TERM:USR1", &rewritten)),
        Check::new("PID1_REWRITE", having("PID1_REWRITE=15:10", &rewritten)),
        Check::new("--map-exit", given("--map-exit 42:7", "exit 42")).exits(7),
        Check::new("PID1_MAP_EXIT", having("PID1_MAP_EXIT=143:0", &format!("die {SIGTERM}"))),
        Check::new("--signal-group", given("--signal-group", &format!("group {SIGTERM}"))),
        Check::new("--wait-all", given("--wait-all", "late")).prints("left to PID 1\n"),
        Check::new("--kill-after", hang).exits(128 + SIGKILL).prints("ready\n"),
        Check::new("--drain", given("--drain 1000", "drained")),
        Check::new("LISTEN_PID is the program's", having("LISTEN_PID=1", "listens")),
        Check::new("--log json", given("-v --log json", "exit 42")).exits(42).complains("{\""),
        Check::new("--version", Run::new(&["--version"])).mentions("pid1 "),
        Check::new("a wrong option is 125", Run::new(&["--no-such"]))
            .exits(125)
            .complains("--no-such"),
    ];
    checks.extend(other_user(surroundings));
    checks
}

/// `run` by root, whoever the image is for: only he can become another.
fn of_root(run: Run) -> Run {
    Run { user: Some("0:0".to_string()), ..run }
}

/// pid1 starts its program as another user, and stays who it is.
fn other_user(surroundings: &Surroundings) -> Vec<Check> {
    let as_root = |words: &str| of_root(given(&format!("--user {NONROOT}"), words));
    if surroundings.only_us {
        let check = Check::new("--user needs other users", as_root("ids"));
        return vec![check.exits(125).complains("pid1: cannot ")];
    }
    vec![
        Check::new("--user", as_root("ids")).prints("65532:65532\n"),
        Check::new("--group", of_root(given("--group 65532", "ids"))).prints("0:65532\n"),
        Check::new("pid1 itself stays root", as_root("owner /proc/1")).prints("0\n"),
    ]
}

/// The same binary under other names, each told from the others by something only it does.
fn personalities() -> Vec<Check> {
    let called = |name: &str, run: Run| through(&format!("called {name}"), run);
    let forgives = |name: &str| {
        let run = given("-e 143 --", &format!("die {SIGTERM}"));
        Check::new(&format!("as {name} it forgives an exit code"), called(name, run))
    };
    let cannot_run = |name: &str, code: i32| {
        let run = Run::new(&["no-such-program"]);
        Check::new(&format!("as {name} it has that one's exit codes"), called(name, run))
            .exits(code)
    };
    vec![
        forgives("tini"),
        forgives("tini-static"),
        forgives("docker-init"),
        cannot_run("dumb-init", 2),
        cannot_run("catatonit", 1),
        cannot_run("podman-init", 1),
    ]
}

fn circumstances() -> Vec<Check> {
    let as_user = |words: &str| Run { user: Some(NONROOT.to_string()), ..probe(words) };
    let read_only = |words: &str| Run { read_only: true, ..probe(words) };
    vec![
        Check::new("it runs as an ordinary user", as_user("ids")).prints("65532:65532\n"),
        Check::new("signals are forwarded for him", as_user(&format!("forwarded {SIGTERM}"))),
        Check::new("orphans are reaped for him", as_user("orphans 3")).prints("0 zombies\n"),
        Check::new("what is left may end in peace for him", as_user("grace 1"))
            .prints("Got a TERM\n"),
        Check::new("it runs from a read-only root", read_only("exit 42")).exits(42),
        Check::new("that is read-only", read_only("write /sbin/file"))
            .exits(1)
            .complains("Read-only file system"),
    ]
}

/// What docker-library asks of every image
/// (<https://github.com/docker-library/official-images/tree/master/test/tests>).
fn conventions(surroundings: &Surroundings) -> Vec<Check> {
    let expected = |program: &str| match program {
        "/bin/echo" => Check::new("echo prints what it is told", Run::new(&["echo", "Hello"]))
            .prints("Hello\n"),
        _ => Check::new("there is a shell", Run::new(&["sh", "-c", "exit 42"])).exits(42),
    };
    let programs = surroundings.programs.iter();
    programs.map(|program| expected(program).without_complaint()).collect()
}

/// What only an engine can do with an image.
fn engine() -> Vec<Check> {
    let with = |options: &str, words: &str| Run {
        engine: options.split(' ').map(str::to_string).collect(),
        ..probe(words)
    };
    let on_ready =
        |deed| Run { then: Some((Cue::Printed("ready".to_string()), deed)), ..probe("idle") };
    let waits = probe(&format!("wait {SIGTERM}")).arguments;
    let confined = "--cap-drop=ALL --security-opt=no-new-privileges --read-only --user=65532:65532";
    vec![
        Check::new("`stop` is SIGTERM, and is enough", on_ready(Deed::Stop))
            .exits(128 + SIGTERM)
            .ends_within(AT_ONCE),
        Check::new("what came in by `exec` may end in peace", on_ready(Deed::StopBeside(waits)))
            .exits(128 + SIGTERM)
            .prints(&format!("ready\nready\n{SIGTERM} came\n")),
        Check::new("orphans are reaped without capabilities", with("--cap-drop=ALL", "orphans 3"))
            .prints("0 zombies\n"),
        Check::new("what is left may end in peace without privileges", with(confined, "grace 2"))
            .prints("Got a TERM\nGot a TERM\n"),
        Check::new("where no process may be started, too", with("--pids-limit=16", "grace 2"))
            .prints("Got a TERM\nGot a TERM\n"),
        Check::new("the program is in front of a terminal", with("--tty", "terminal"))
            .prints("in front\r\n"),
        Check::new("below `--init` it becomes its program", with("--init", "parent")).prints("1\n"),
        Check::new("codes pass through `--init`", with("--init", "exit 42")).exits(42),
    ]
}

/// Runs the checks one after the other; gives how many were met, and what is wrong with the
/// others.
pub fn run(place: &Place, own: &[Smoke], interrupt: &Interrupt) -> Result<(usize, Vec<String>)> {
    let checks = all(own, &place.surroundings());
    let looks = looks::at(place.rootfs());
    let count = checks.len() + looks.len();
    let mut failures: Vec<_> = looks.into_iter().flatten().collect();
    for check in &checks {
        failures.extend(check.failure(place, interrupt));
        interrupt.check()?;
    }
    Ok((count - failures.len(), failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_promise_is_made_once() {
        let surroundings = Surroundings {
            only_us: false,
            is_emulated: false,
            is_engine: true,
            programs: EXPECTED.to_vec(),
        };
        let names: Vec<_> = all(&[], &surroundings).into_iter().map(|check| check.name).collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }
}
