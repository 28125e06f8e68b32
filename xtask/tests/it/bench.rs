//! What `cargo xtask bench images` says where it cannot measure.

use crate::push::fixture::{Project, fails};

#[test]
fn images_are_measured_from_ready_binaries_only() {
    let project = Project::new(&[], &[], 0);
    let run = project.run(&["bench", "images", "--quiet"]);
    let binary = project.folder.path().join("target/dist/bin/linux-amd64/pid1");
    fails(
        &run,
        &format!(
            "error: cannot read `{}`, run `cargo xtask build --platform linux/amd64`: No such file \
             or directory (os error 2)",
            binary.display()
        ),
    );
}
