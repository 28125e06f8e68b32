//! That umoci reads and unpacks a layout. It refuses to choose among platforms, so it gets one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::VERSION;
use super::place::{Place, succeeds};

#[test]
fn a_layout_can_be_unpacked() {
    let place = Place::new();
    place.build(&["docker-testing", "--platform", "linux/arm/v7"]);
    let image = format!("{}:{}-docker-testing", place.layout("docker-testing").display(), VERSION);
    let history = succeeds(Command::new("umoci").args(["stat", "--image", &image]));
    assert!(history.contains("cargo xtask image: /sbin/pid1"), "{history}");
    let bundle = place.path().join("bundle");
    let mut unpack = Command::new("umoci");
    unpack.args(["unpack", "--rootless", "--image", &image]).arg(&bundle);
    succeeds(&mut unpack);
    let root = bundle.join("rootfs");
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("sbin/pid1"), 0o755);
    assert_eq!(mode("tmp"), 0o1777);
    assert_eq!(fs::read(root.join("bin/ps")).unwrap(), b"docker-testing for linux/arm/v7");
    let berlin = fs::read(root.join("usr/share/zoneinfo/Europe/Berlin")).unwrap();
    assert!(berlin.starts_with(b"TZif"));
}
