//! Images on distributions, run: on stand-ins with a shell of Debian's for each platform.

mod docker;
mod podman;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
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

/// Stand-ins in a registry, and a target folder with the binaries that `cargo xtask test` built.
struct Setting {
    server: Server,
    folder: TempDir,
}

impl Setting {
    fn new() -> Setting {
        let server = Server::start(&Door::Open);
        debian().push(&server, "hub/library/debian", "trixie-slim");
        busybox().push(&server, "hub/library/busybox", "1.37");
        distroless().push(&server, "google/distroless/static-debian12", "nonroot");
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("dist")).unwrap();
        for part in ["dist/bin", "tools"] {
            let shared = fs::canonicalize(target()).unwrap().join(part);
            symlink(shared, folder.path().join(part)).unwrap();
        }
        Setting { server, folder }
    }

    fn xtask(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(words).env("CARGO_TARGET_DIR", self.folder.path());
        command.env("PID1_LOCK_FILE", self.folder.path().join("a.lock"));
        let mirrors = [("docker.io", "hub"), ("gcr.io", "google")];
        let mirrors = mirrors.map(|(from, to)| format!("{from}={}/{to}", self.server.address));
        command.env("PID1_MIRRORS", mirrors.join(","));
        command
    }

    #[track_caller]
    fn build(&self, image: &str, platforms: &[String]) {
        succeeds(&done(&mut self.xtask(&["lock", image])));
        succeeds(&done(self.xtask(&["image", image]).args(platforms)));
    }
}

fn options(platforms: &[&str]) -> Vec<String> {
    platforms.iter().map(|platform| format!("--platform={platform}")).collect()
}

#[test]
fn images_on_distributions_pass_their_smoke_tests() {
    let setting = Setting::new();
    for (image, platforms) in RUNS {
        let platforms = options(platforms);
        setting.build(image, &platforms);
        let smoke = done(setting.xtask(&["smoke", image]).args(&platforms));
        succeeds(&smoke);
        let passed = smoke.stderr.lines().filter(|it| it.ends_with(" passed")).count();
        assert_eq!(passed, platforms.len(), "{}", smoke.stderr);
    }
}

/// What users build on: an image and a platform.
const BUILT_ON: [(&str, &str); 3] =
    [("debian", "linux/amd64"), ("debian", "linux/arm64"), ("busybox", "linux/arm/v7")];

/// Who its parent is, and whether the engine filters its system calls.
const SCRIPT: &str = "echo \"below $PPID\"\n\
                      while read -r name value; do\n\
                      if [ \"$name\" = Seccomp: ]; then echo \"seccomp $value\"; fi\n\
                      done < /proc/self/status\n";

/// Pushes images on distributions, builds on them with `build`, which gives the image's name, and
/// runs that with `run`.
#[track_caller]
fn can_be_built_on(
    build: impl Fn(&str, &Path) -> String,
    run: impl Fn(&str, &str, &[&str]) -> Done,
) {
    let setting = Setting::new();
    let repository = format!("{}/pid1", setting.server.address);
    for image in ["debian", "busybox"] {
        let its = BUILT_ON.iter().filter(|it| it.0 == image).map(|it| it.1);
        setting.build(image, &options(&its.collect::<Vec<_>>()));
        succeeds(&done(&mut setting.xtask(&["push", &repository, image])));
    }
    for (image, platform) in BUILT_ON {
        let context = TempDir::new().unwrap();
        let text = format!("FROM {repository}:{image}\nCOPY script /\nCMD [\"sh\", \"/script\"]\n");
        fs::write(context.path().join("Dockerfile"), text).unwrap();
        fs::write(context.path().join("script"), SCRIPT).unwrap();
        let name = build(platform, context.path());
        let done = run(platform, &name, &[]);
        assert_eq!(done.stdout, "below 1\nseccomp 2\n", "{image} for {platform}: {done:?}");
        let done = run(platform, &name, &["sh", "-c", "exit 42"]);
        assert_eq!(done.code, Some(42), "{image} for {platform}: {done:?}");
    }
}
