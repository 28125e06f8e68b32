//! Podman on the same bases.

use crate::image::dockerfile::are_same;
use crate::image::place::{Place, succeeds};
use crate::podman::Store;

use super::{BUILDS, Setting, are_on_the_same_layers, with_all};

#[test]
fn podman_builds_on_the_locked_base_from_the_mirror() {
    let test = "podman_builds_on_the_locked_base_from_the_mirror";
    let Some(store) = Store::new(test) else { return };
    let (setting, theirs) = (Setting::locked(&with_all()), Place::new());
    succeeds(&mut setting.xtask(&BUILDS));
    let mut build = setting.xtask(&BUILDS);
    build.args(["--builder", "podman"]).envs(store.variables());
    succeeds(build.env("CARGO_TARGET_DIR", theirs.path()));
    are_same(&setting.place, &theirs, "debian");
    are_on_the_same_layers(&setting.place, &theirs);
}
