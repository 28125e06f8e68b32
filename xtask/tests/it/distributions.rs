//! Images on distributions, run: on stand-ins with a shell of Debian's for each platform.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use tempfile::TempDir;

use crate::built::{Done, done, target};
use crate::docker_registry::server::{Door, Server};
use crate::standins::packages::{busybox, debian, distroless};

/// What is run where: every platform once at least.
const RUNS: [(&str, &[&str]); 3] = [
    ("debian", &["linux/amd64", "linux/arm64", "linux/s390x"]),
    ("busybox", &["linux/arm/v7", "linux/arm/v6", "linux/386", "linux/ppc64le"]),
    ("distroless-static", &["linux/amd64", "linux/arm64"]),
];

#[track_caller]
fn succeeds(done: &Done) {
    assert_eq!(done.code, Some(0), "{}", done.stderr);
}

#[test]
fn images_on_distributions_pass_their_smoke_tests() {
    let server = Server::start(&Door::Open);
    debian().push(&server, "hub/library/debian", "trixie-slim");
    busybox().push(&server, "hub/library/busybox", "1.37");
    distroless().push(&server, "google/distroless/static-debian12", "nonroot");

    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("dist")).unwrap();
    for part in ["dist/bin", "tools"] {
        symlink(fs::canonicalize(target()).unwrap().join(part), folder.path().join(part)).unwrap();
    }
    let xtask = |verb: &str, image: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args([verb, image]).env("CARGO_TARGET_DIR", folder.path());
        command
    };
    let mirrors = [("docker.io", "hub"), ("gcr.io", "google")];
    let mirrors = mirrors.map(|(from, to)| format!("--mirror={from}={}/{to}", server.address));
    let lock = format!("--lock-file={}", folder.path().join("a.lock").display());
    for (image, platforms) in RUNS {
        let platforms = platforms.iter().map(|platform| format!("--platform={platform}"));
        let platforms: Vec<_> = platforms.collect();
        succeeds(&done(xtask("lock", image).args(&mirrors).arg(&lock)));
        succeeds(&done(xtask("image", image).args(&mirrors).arg(&lock).args(&platforms)));
        let smoke = done(xtask("smoke", image).args(&platforms));
        succeeds(&smoke);
        let passed = smoke.stderr.lines().filter(|it| it.ends_with(" passed")).count();
        assert_eq!(passed, platforms.len(), "{}", smoke.stderr);
    }
}
