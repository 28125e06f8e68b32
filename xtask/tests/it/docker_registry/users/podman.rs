//! By podman.

use std::path::Path;
use std::process::Command;

use super::{all_work, succeeds};
use crate::built::{Done, done};
use crate::podman::Store;

fn podman(store: &Store, words: &[&str]) -> Done {
    done(Command::new("podman").args(words).envs(store.variables()))
}

pub fn build(store: &Store, platform: &str, context: &Path) -> String {
    let options = ["--quiet", "--tls-verify=false", "--isolation=chroot", "--platform", platform];
    let line = [&["build"], &options[..], &["--tag", "users", context.to_str().unwrap()]].concat();
    let built = podman(store, &line);
    succeeds(&built);
    built.stdout.trim().to_string()
}

pub fn run(store: &Store, platform: &str, image: &str, words: &[&str]) -> Done {
    let options = ["run", "--rm", "--pull=never", "--network=none", "--platform", platform];
    podman(store, &[&options[..], &[image], words].concat())
}

#[test]
fn the_readme_s_dockerfiles_work() {
    let Some(store) = Store::new("the_readme_s_dockerfiles_work") else { return };
    all_work(
        |platform, context| build(&store, platform, context),
        |platform, image, words| run(&store, platform, image, words),
    );
}
