//! By docker.

use std::process::Command;

use super::{all_work, succeeds};
use crate::built::{Done, done};

fn docker(words: &[&str]) -> Done {
    done(Command::new("docker").args(words))
}

/// An image of the test's own in a daemon that others use, too.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["image", "rm", "--force", &self.0]);
    }
}

#[test]
fn the_readme_s_dockerfiles_work() {
    let image = Image(format!("pid1-users-{}", std::process::id()));
    let build = |platform: &str, context: &std::path::Path| {
        let built = docker(&[
            "buildx",
            "build",
            "--quiet",
            "--load",
            "--provenance=false",
            "--platform",
            platform,
            "--tag",
            &image.0,
            context.to_str().unwrap(),
        ]);
        succeeds(&built);
        image.0.clone()
    };
    all_work(build, |platform, image, words| {
        // Not with `--rm`, which loses output; see xtask/src/smoke/engine.rs.
        let name = format!("{image}-run");
        let options = ["run", "--pull=never", "--network=none", "--name", &name];
        let done = docker(&[&options[..], &["--platform", platform, image], words].concat());
        docker(&["rm", "--force", &name]);
        done
    });
}
