//! By podman.

use super::{Setting, can_be_built_on, options, succeeds};
use crate::built::{done, host};
use crate::docker_registry::users::podman::{build, run};
use crate::podman::Store;

#[test]
fn users_build_on_them_and_podman_runs_that() {
    let Some(store) = Store::new("users_build_on_them_and_podman_runs_that") else { return };
    can_be_built_on(
        |platform, context| build(&store, platform, context),
        |platform, image, words| run(&store, platform, image, words),
    );
}

#[test]
fn they_pass_podman_s_smoke_tests() {
    let Some(store) = Store::new("they_pass_podman_s_smoke_tests") else { return };
    let (setting, host) = (Setting::new(), options(&[&host()]));
    setting.build("debian", &host);
    let mut smoke = setting.xtask(&["smoke", "debian", "--engine=podman"]);
    succeeds(&done(smoke.args(&host).envs(store.variables())));
}
