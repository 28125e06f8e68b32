//! The images themselves, all nine platforms of them, as `cargo xtask test` has built them.

use std::process::Command;

use super::server::{Door, Server};
use crate::built::done;
use crate::dist::succeeds;

/// As skopeo selects them: the architecture, and the variant where there is one.
const PLATFORMS: [(&str, &str); 9] = [
    ("amd64", ""),
    ("arm64", ""),
    ("arm", "v7"),
    ("arm", "v6"),
    ("386", ""),
    ("ppc64le", ""),
    ("s390x", ""),
    ("riscv64", ""),
    ("loong64", ""),
];

#[test]
fn dist_pushes_what_it_tested_and_skopeo_pulls_every_platform() {
    let server = Server::start(&Door::Open);
    let repository = format!("{}/pid1", server.address);
    let dist = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        succeeds(done(command.args(["dist", "--push", &repository])))
    };
    let first = dist();
    let built = succeeds(done(Command::new(env!("CARGO_BIN_EXE_xtask")).arg("image"))).stdout;
    let digests = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once('@')?.1.to_string())).collect()
    };
    assert_eq!(digests(&first.stdout), digests(&built));
    assert!(first.stdout.lines().all(|line| line.starts_with(&format!("{repository}@sha256:"))));
    let second = dist();
    assert_eq!(second.stdout, first.stdout);
    assert!(second.stderr.contains("blobs: 0 uploaded (0 B), "), "{}", second.stderr);
    for (architecture, variant) in PLATFORMS {
        is_pulled(&repository, architecture, variant);
    }
}

#[track_caller]
fn is_pulled(repository: &str, architecture: &str, variant: &str) {
    let place = tempfile::tempdir().unwrap();
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--override-os", "linux", "--override-arch", architecture]);
    skopeo.args(["--override-variant", variant]);
    skopeo.args(["copy", "--src-tls-verify=false", &format!("docker://{repository}:static")]);
    succeeds(done(skopeo.arg(format!("dir:{}", place.path().display()))));
    let mut inspect = Command::new("skopeo");
    inspect.args(["inspect", "--config", &format!("dir:{}", place.path().display())]);
    let config = succeeds(done(&mut inspect)).stdout;
    assert!(config.contains(&format!("\"architecture\": \"{architecture}\"")), "{config}");
}
