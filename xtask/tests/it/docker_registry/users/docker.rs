//! By docker.

use std::path::Path;
use std::process::Command;

use super::{all_work, succeeds};
use crate::built::{Done, done};

fn docker(words: &[&str]) -> Done {
    done(Command::new("docker").args(words))
}

/// An image of the test's own in a daemon that others use, too.
pub struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["image", "rm", "--force", &self.0]);
    }
}

impl Image {
    pub fn new(kind: &str) -> Image {
        Image(format!("pid1-{kind}-{}", std::process::id()))
    }

    pub fn build(&self, platform: &str, context: &Path) -> String {
        let options = ["--quiet", "--load", "--provenance=false", "--platform", platform];
        let line = [&["buildx", "build"], &options[..], &["--tag", &self.0]].concat();
        succeeds(&docker(&[&line[..], &[context.to_str().unwrap()]].concat()));
        self.0.clone()
    }
}

pub fn run(platform: &str, image: &str, words: &[&str]) -> Done {
    // Not with `--rm`, which loses output; see xtask/src/smoke/engine.rs.
    let name = format!("{image}-run");
    let options = ["run", "--pull=never", "--network=none", "--name", &name];
    let done = docker(&[&options[..], &["--platform", platform, image], words].concat());
    docker(&["rm", "--force", &name]);
    done
}

#[test]
fn the_readme_s_dockerfiles_work() {
    let image = Image::new("users");
    all_work(|platform, context| image.build(platform, context), run);
}
