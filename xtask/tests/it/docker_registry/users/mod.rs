//! What users do with the images: the README's Dockerfiles, built on what a registry gives and run,
//! for this machine and two others.

pub mod docker;
pub mod podman;

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::server::{Door, Server};
use crate::built::{Done, done, target};

/// How the README calls the repository, and the base of its second example.
const REPOSITORY: &str = "ghcr.io/example/pid1";
const DEBIAN: &str = "FROM debian:trixie-slim";

/// Stands in for a distribution: programs, and no init.
const USERLAND: &str = "FROM scratch AS userland\n\
                        ARG TARGETPLATFORM\n\
                        ADD $TARGETPLATFORM/docker-testing.tar.gz /\n\
                        ENV PATH=/bin\n";

/// All run natively or through an emulator on every machine that tests run on.
const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];

/// An example of the README, and what comes of running words in it: a code, and its output.
struct Example {
    file: &'static str,
    runs: &'static [(&'static [&'static str], i32, &'static str)],
}

const EXAMPLES: &[Example] = &[
    Example {
        file: "static.Dockerfile",
        runs: &[
            // The server is a pid1 once more: a static program that there is for every platform.
            (&["/server", "--version"], 0, concat!("pid1 ", env!("CARGO_PKG_VERSION"), "\n")),
            (&[], 125, "pid1: No arguments provided\n"),
        ],
    },
    Example {
        file: "debian.Dockerfile",
        runs: &[
            (&["sigterm"], 143, ""),
            (&["ps", "-o", "args", "1"], 0, "/sbin/pid1 ps -o args 1\n"),
            (&[], 127, "pid1: cannot run `my-server`"),
        ],
    },
    Example {
        file: "tini.Dockerfile",
        runs: &[
            (&["sigterm"], 143, ""),
            (&["ps", "-o", "args", "1"], 0, "/usr/bin/tini -- ps -o args 1\n"),
        ],
    },
];

/// A registry with our images in it, as `cargo xtask test` has built them.
fn registry() -> Server {
    let server = Server::start(&Door::Open);
    let mut push = Command::new(env!("CARGO_BIN_EXE_xtask"));
    push.args(["push", &format!("{}/pid1", server.address), "scratch", "static"]);
    succeeds(&done(&mut push));
    server
}

/// What an example is built from for `platform`, on the images of `server`.
fn context(example: &Example, server: &Server, platform: &str) -> TempDir {
    let context = tempfile::tempdir().unwrap();
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("images");
    let text = fs::read_to_string(images.join("examples").join(example.file)).unwrap();
    let text = if text.starts_with("FROM ") {
        text
    } else {
        format!("{DEBIAN}\n{text}ENTRYPOINT [\"/usr/bin/tini\", \"--\"]\n")
    };
    let text = text.replace(REPOSITORY, &format!("{}/pid1", server.address));
    let text = format!("{USERLAND}{}", text.replace(DEBIAN, "FROM userland"));
    fs::write(context.path().join("Dockerfile"), text).unwrap();
    let dist = target().join("dist");
    let pid1 = dist.join("bin").join(platform.replace('/', "-")).join("pid1");
    fs::copy(pid1, context.path().join("server")).unwrap();
    let programs = format!("{platform}/docker-testing.tar.gz");
    let copy = context.path().join(&programs);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::copy(dist.join("context/docker-testing").join(&programs), copy).unwrap();
    context
}

/// Builds every example for every platform with `build`, which gives the image's name, and runs it
/// with `run`.
#[track_caller]
fn all_work(build: impl Fn(&str, &Path) -> String, run: impl Fn(&str, &str, &[&str]) -> Done) {
    let server = registry();
    for example in EXAMPLES {
        for platform in PLATFORMS {
            let context = context(example, &server, platform);
            let image = build(platform, context.path());
            for (words, code, printed) in example.runs {
                let done = run(platform, &image, words);
                let what = format!("{} for {platform}: {words:?}: {done:?}", example.file);
                assert_eq!(done.code, Some(*code), "{what}");
                assert!((done.stdout + &done.stderr).starts_with(printed), "{what}");
            }
        }
    }
}

#[track_caller]
fn succeeds(done: &Done) {
    assert_eq!(done.code, Some(0), "{}", done.stderr);
}
