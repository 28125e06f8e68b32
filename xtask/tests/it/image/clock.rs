//! That an image does not depend on when it is built.

use std::process::Command;

use super::place::{Place, succeeds};

/// Where the clock is years ahead.
fn later(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("faketime");
    command.arg("2031-05-06 07:08:09").arg(program);
    command
}

#[test]
fn images_are_the_same_years_later() {
    assert_eq!(succeeds(later("date").arg("+%Y")), "2031\n");
    let (now, then) = (Place::new(), Place::new());
    let images = ["image", "scratch", "static", "docker-testing"];
    let build = |mut command: Command, place: &Place| {
        command.args(images).env("CARGO_TARGET_DIR", place.path()).env_remove("SOURCE_DATE_EPOCH");
        succeeds(&mut command)
    };
    let program = env!("CARGO_BIN_EXE_xtask");
    let digests = build(Command::new(program), &now);
    assert_eq!(digests.matches("@sha256:").count(), 3);
    assert_eq!(build(later(program), &then), digests);
}
