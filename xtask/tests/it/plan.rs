//! `cargo xtask plan`: what it prints, for people, for programs and for CI.

use std::process::Command;

use serde_json::{Value, json};

use crate::built::done;

fn plan(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let done = done(command.arg("plan").args(arguments));
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    done.stdout
}

#[test]
fn a_plan_is_a_line_an_image_and_the_same_as_json() {
    let all = plan(&[]);
    let expected = "linux/amd64 linux/arm64 linux/arm/v7 linux/arm/v6 linux/386 linux/ppc64le \
                    linux/s390x linux/riscv64 linux/loong64";
    let names = ["scratch", "static", "docker-testing"];
    let lines = names.map(|it| format!("{it:18} {expected}"));
    assert_eq!(all.lines().collect::<Vec<_>>(), lines);
    let json: Value = serde_json::from_str(&plan(&["--json"])).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    for (image, line) in json["images"].as_array().unwrap().iter().zip(all.lines()) {
        let platforms: Vec<_> =
            image["platforms"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        let name = image["name"].as_str().unwrap();
        assert_eq!(format!("{name:18} {}", platforms.join(" ")), line);
    }
}

#[test]
fn the_jobs_of_ci_are_one_line_that_github_reads() {
    let line = plan(&["static", "--platform", "linux/amd64,linux/arm64,linux/386", "--matrix"]);
    let matrix: Value = serde_json::from_str(line.strip_prefix("matrix=").unwrap()).unwrap();
    assert_eq!(line.lines().count(), 1);
    let job = |runner: &str, platforms: &str| json!({ "image": "static", "runner": runner, "platforms": platforms });
    let jobs =
        [job("ubuntu-24.04", "linux/amd64,linux/386"), job("ubuntu-24.04-arm", "linux/arm64")];
    assert_eq!(matrix, json!({ "include": jobs }));
}
