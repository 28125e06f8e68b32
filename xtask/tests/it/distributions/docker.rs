//! By docker.

use super::{Setting, can_be_built_on, options, succeeds};
use crate::built::{done, host};
use crate::docker_registry::users::docker::{Image, run};

#[test]
fn users_build_on_them_and_docker_runs_that() {
    let image = Image::new("built-on");
    can_be_built_on(|platform, context| image.build(platform, context), run);
}

#[test]
fn they_pass_docker_s_smoke_tests() {
    let (setting, host) = (Setting::new(), options(&[&host()]));
    setting.build("debian", &host);
    succeeds(&done(setting.xtask(&["smoke", "debian", "--engine=docker"]).args(&host)));
}
