//! Dockerfiles that were written for tini or dumb-init, with nothing but the binary exchanged.

use std::fmt::Write as _;
use std::fs;
use std::io::{Write as _, stderr};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::daemon::Daemon;
use crate::built;
use crate::push::fixture::{Run, run};

/// What there is to do for an init. The first shows an option at work, if there is one.
const COMMANDS: &[&[&str]] = &[
    &["sh", "-c", "echo out; echo err >&2; kill $$"],
    &["sh", "-c", "exit 3"],
    &["sh", "-c", "(sleep 1000 &); exit 4"],
    &["/bin/no-such"],
    &["/etc"],
];

/// Ends when stopped.
const HANDLES: &str = "trap 'echo got TERM; exit 8' TERM; trap 'echo got QUIT; exit 9' QUIT
    echo ready >&2; while :; do sleep 1000 & wait; done";
const HANDLES_NOTHING: &str = "echo ready >&2; exec sleep 1000";
/// Goes on when stopped until its child has ended, which has to be stopped too.
const WAITS_FOR_ITS_CHILD: &str = "trap : TERM
    sh -c 'trap \"exit 5\" TERM; echo ready >&2; while :; do sleep 1000 & wait; done'
    echo child ended with $?";

/// An init that others write Dockerfiles for.
struct Original {
    binary: &'static str,
    /// How these get it into the image, and what they name there.
    instructions: &'static str,
    called: &'static str,
}

const TINI: Original = Original {
    binary: "/usr/bin/tini-static",
    instructions: "ADD init /tini\nRUN chmod +x /tini\n",
    called: "/tini",
};

const DUMB_INIT: Original = Original {
    binary: "/usr/bin/dumb-init",
    instructions: "COPY --chmod=755 init /usr/bin/dumb-init\n",
    called: "/usr/bin/dumb-init",
};

/// A Dockerfile's ENTRYPOINT, and a script for its CMD that is to be stopped.
type Case = (&'static [&'static str], &'static str);

#[test]
fn an_image_for_tini_behaves_with_ours() {
    check(
        "an_image_for_tini_behaves_with_ours",
        &TINI,
        &[
            (&["--"], HANDLES),
            (&["-g", "--"], WAITS_FOR_ITS_CHILD),
            (&["-v", "--"], HANDLES),
            (&["-e", "143", "--"], HANDLES_NOTHING),
        ],
    );
}

#[test]
fn an_image_for_dumb_init_behaves_with_ours() {
    check(
        "an_image_for_dumb_init_behaves_with_ours",
        &DUMB_INIT,
        &[
            (&["--"], WAITS_FOR_ITS_CHILD),
            (&["--rewrite", "15:3", "--"], HANDLES),
            (&["--single-child", "--"], HANDLES),
        ],
    );
}

#[track_caller]
fn check(test: &str, original: &Original, cases: &[Case]) {
    let Some(docker) = Daemon::get(test) else { return };
    if !Path::new(original.binary).exists() {
        let _ = writeln!(stderr(), "NOT RUN: {test}: {} is not installed", original.binary);
        return;
    }
    for (at, (options, stopped)) in cases.iter().enumerate() {
        // Everything once; with an option, what it may change.
        let commands = if at == 0 { COMMANDS } else { &COMMANDS[..1] };
        let seen = |kind: &str, binary: &Path| {
            let name = format!("{}-{kind}-{at}", original.called.rsplit('/').next().unwrap());
            let entrypoint = [&[original.called], *options].concat();
            docker.build(&name, image(original, binary, &entrypoint).path());
            observe(&docker, &name, commands, stopped)
        };
        let ours = seen("ours", &built::pid1());
        let theirs = seen("theirs", Path::new(original.binary));
        assert_eq!(ours, theirs, "left ours, right the original, with {options:?}");
    }
}

/// What is seen of the image `name`: code, what its program printed, whether init spoke.
fn observe(
    docker: &Daemon,
    name: &str,
    commands: &[&[&str]],
    stopped: &str,
) -> Vec<(Option<i32>, String, String, bool)> {
    let options = ["run", "--rm", "--network=none"];
    let plain = |words: &&[&str]| docker.run(&[&options[..], &[name], words].concat());
    let mut runs: Vec<Run> = commands.iter().map(plain).collect();
    let options = [&options[..], &["--name", name, name, "sh", "-c", stopped]].concat();
    let running = docker.start_until_ready(&options);
    docker.must(&["stop", name]);
    runs.push(running.finish());
    runs.iter().map(outcome).collect()
}

fn outcome(run: &Run) -> (Option<i32>, String, String, bool) {
    let is_inits = |line: &&str| {
        ["[INFO ", "[FATAL ", "[WARN ", "[dumb-init] ", "tini: "]
            .iter()
            .any(|it| line.starts_with(it))
    };
    let programs =
        |text: &str| text.lines().filter(|line| !is_inits(line)).collect::<Vec<_>>().join("\n");
    let spoke = run.stdout.lines().chain(run.stderr.lines()).any(|line| is_inits(&line));
    (run.code, programs(&run.stdout), programs(&run.stderr), spoke)
}

/// An image with a busybox and no init; its name.
pub fn busybox(docker: &Daemon, name: &str) {
    let context = tempfile::tempdir().unwrap();
    fs::write(context.path().join("Dockerfile"), userland(context.path())).unwrap();
    docker.build(name, context.path());
}

/// What to build an image from that has `binary` as its init.
fn image(original: &Original, binary: &Path, entrypoint: &[&str]) -> TempDir {
    let context = tempfile::tempdir().unwrap();
    let mut dockerfile = userland(context.path());
    fs::copy(binary, context.path().join("init")).unwrap();
    for library in libraries(original.binary) {
        let to = context.path().join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&library, to).unwrap();
        writeln!(dockerfile, "COPY {0} {0}", library.trim_start_matches('/')).unwrap();
    }
    dockerfile.push_str(original.instructions);
    writeln!(dockerfile, "ENTRYPOINT {entrypoint:?}").unwrap();
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    context
}

/// The start of a Dockerfile: all that a script needs.
fn userland(context: &Path) -> String {
    fs::copy("/bin/busybox", context.join("busybox")).expect("busybox-static is needed here");
    "FROM scratch\nCOPY busybox /bin/busybox\n\
        RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n"
        .to_owned()
}

/// What the program is linked with; nothing if it is static.
fn libraries(program: &str) -> Vec<String> {
    let listed = run(Command::new("ldd").arg(program));
    let words = listed.stdout.split_whitespace().filter(|word| word.starts_with("/lib"));
    words.map(str::to_owned).collect()
}
