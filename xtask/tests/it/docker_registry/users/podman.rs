//! By podman.

use std::process::Command;

use super::{all_work, succeeds};
use crate::built::{Done, done};
use crate::podman::Store;

#[test]
fn the_readme_s_dockerfiles_work() {
    let Some(store) = Store::new("the_readme_s_dockerfiles_work") else { return };
    let podman = |words: &[&str]| -> Done {
        done(Command::new("podman").args(words).envs(store.variables()))
    };
    let build = |platform: &str, context: &std::path::Path| {
        let built = podman(&[
            "build",
            "--quiet",
            "--tls-verify=false",
            "--isolation=chroot",
            "--platform",
            platform,
            "--tag",
            "users",
            context.to_str().unwrap(),
        ]);
        succeeds(&built);
        built.stdout.trim().to_string()
    };
    all_work(build, |platform, image, words| {
        let options = ["run", "--rm", "--pull=never", "--network=none", "--platform", platform];
        podman(&[&options[..], &[image], words].concat())
    });
}
