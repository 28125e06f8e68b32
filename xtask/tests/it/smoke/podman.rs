//! The same checks and more, by podman, with a store of each test's own.

use std::process::Command;

use super::{foreign, passes};
use crate::built::{done, host, xtask};
use crate::podman::Store;

#[track_caller]
fn passes_with_podman(test: &str, command: &mut Command) {
    let Some(store) = Store::new(test) else { return };
    passes(&done(command.args(["--engine=podman"]).envs(store.variables())));
    let mut images = Command::new("podman");
    images.args(["images", "--all", "--quiet"]).envs(store.variables());
    assert_eq!(done(&mut images).stdout, "");
}

#[test]
fn every_image_passes_and_nothing_of_it_stays() {
    let test = "every_image_passes_and_nothing_of_it_stays";
    passes_with_podman(test, xtask().args(["smoke", "--platform", &host()]));
}

/// Of those that `cargo xtask test` has built.
#[test]
fn an_image_for_another_processor_passes() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["smoke", "scratch", "--platform", foreign()]);
    passes_with_podman("an_image_for_another_processor_passes", &mut command);
}
