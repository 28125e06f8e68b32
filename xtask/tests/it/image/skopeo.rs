//! That skopeo finds every platform in a layout.

use std::process::Command;

use serde_json::Value;

use super::place::{PLATFORMS, Place, succeeds};

#[test]
fn every_platform_is_found_by_its_name() {
    let place = Place::new();
    place.build(&["docker-testing"]);
    for platform in PLATFORMS {
        let parts: Vec<_> = platform.split('/').collect();
        let mut command = Command::new("skopeo");
        command.args(["inspect", "--config", "--override-os", parts[0]]);
        command.args(["--override-arch", parts[1]]);
        if let Some(variant) = parts.get(2) {
            command.args(["--override-variant", variant]);
        }
        command.arg(format!("oci:{}", place.layout("docker-testing").display()));
        let configuration: Value = serde_json::from_str(&succeeds(&mut command)).unwrap();
        assert_eq!(configuration["architecture"], parts[1]);
        assert_eq!(configuration["variant"].as_str(), parts.get(2).copied());
        assert_eq!(configuration["config"]["Entrypoint"][0], "/sbin/pid1");
    }
}

#[test]
fn a_copy_of_all_platforms_has_the_same_digest() {
    let place = Place::new();
    let printed = place.build(&["static"]);
    let copy = place.path().join("copy");
    let (from, to) = (place.layout("static"), format!("dir:{}", copy.display()));
    let from = format!("oci:{}", from.display());
    succeeds(Command::new("skopeo").args(["copy", "--quiet", "--all", &from, &to]));
    let index = std::fs::read(copy.join("manifest.json")).unwrap();
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&index));
    assert_eq!(printed, format!("static@sha256:{hash}\n"));
}
