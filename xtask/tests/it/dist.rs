//! `cargo xtask dist` on what `cargo xtask test` has built: all of it, for all nine platforms.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::built::{Done, done, host, target};

fn dist(arguments: &[&str]) -> Done {
    done(Command::new(env!("CARGO_BIN_EXE_xtask")).arg("dist").args(arguments))
}

#[track_caller]
pub fn succeeds(done: Done) -> Done {
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    done
}

#[track_caller]
fn fails(arguments: &[&str], expected: &str) {
    let done = dist(arguments);
    assert_ne!(done.code, Some(0));
    assert_eq!(done.stderr, expected);
}

#[test]
fn a_second_dist_does_nothing_again() {
    let first = succeeds(dist(&[]));
    let second = succeeds(dist(&[]));
    assert_eq!(first.stdout, second.stdout);
    let names: Vec<_> = second.stdout.lines().filter_map(|line| line.split('@').next()).collect();
    assert_eq!(names, ["scratch", "static", "docker-testing"]);
    let said = second.stderr;
    assert!(said.contains("build: nothing had to be rebuilt\n"), "{said}");
    assert_eq!(said.matches(": up to date for 9 platforms\n").count(), 3, "{said}");
    assert_eq!(said.matches(" passed before, with these very bytes\n").count(), 27, "{said}");
    assert!(!said.contains("not run"), "{said}");
    the_release_is_what_its_checksums_say();
}

fn the_release_is_what_its_checksums_say() {
    let folder = target().join("dist/release");
    let mut check = Command::new("sha256sum");
    let said = succeeds(done(check.args(["--check", "SHA256SUMS"]).current_dir(&folder))).stdout;
    let mut names = crate::release::names(&folder);
    let checked: Vec<_> = said.lines().filter_map(|line| line.strip_suffix(": OK")).collect();
    assert_eq!(names.join("\n") + "\n", include_str!("release/names.txt"));
    names.retain(|name| !name.ends_with(".sha256") && name != "SHA256SUMS");
    assert_eq!(names, checked);
}

#[test]
fn the_binaries_of_every_platform_tell_scanners_their_crates() {
    let bin = target().join("dist/bin");
    let platforms = crate::release::names(&bin);
    assert!(!platforms.is_empty());
    for platform in platforms {
        let told = crate::release::sbom::told_by(&bin.join(&platform).join("pid1"));
        assert!(told.iter().any(|it| it.starts_with("pkg:cargo/nix@")), "{platform}: {told:?}");
    }
}

/// A target folder of the test's own that has what was compiled before.
pub fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for name in ["cross", "tools"] {
        let shared = fs::canonicalize(target()).unwrap().join(name);
        symlink(shared, place.path().join(name)).unwrap();
    }
    place
}

pub fn dist_in(place: &Path, arguments: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    done(command.arg("dist").args(arguments).env("CARGO_TARGET_DIR", place))
}

#[test]
fn a_platform_that_is_left_out_is_named_to_the_end() {
    let (place, host) = (place(), host());
    let arguments = ["scratch", "--platform", &host, "--no-smoke", &host];
    let said = succeeds(dist_in(place.path(), &arguments)).stderr;
    let expected = format!("not run: scratch for {host}: --no-smoke {host} was given\n");
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains("0 passed, 1 not run"), "{said}");
}

#[test]
fn an_unknown_image_names_the_known_ones() {
    fails(
        &["debain"],
        "error: no such image `debain`, the images are scratch, static, docker-testing, alpine, \
         busybox, debian, distroless-base, distroless-static, ubuntu\n",
    );
}

#[test]
fn an_unknown_platform_names_the_known_ones() {
    fails(
        &["--platform", "linux/mips"],
        "error: invalid value 'linux/mips' for '--platform <PLATFORM>': no such platform, the \
         platforms are linux/amd64, linux/arm64, linux/arm/v7, linux/arm/v6, linux/386, \
         linux/ppc64le, linux/s390x, linux/riscv64, linux/loong64\n\n\
         For more information, try '--help'.\n",
    );
}

#[test]
fn an_unknown_option_names_the_nearest() {
    fails(
        &["--platfrom", "linux/386"],
        "error: unexpected argument '--platfrom' found\n\n  \
         tip: a similar argument exists: '--platform'\n\n\
         Usage: cargo xtask dist --platform <PLATFORM> [NAME]...\n\n\
         For more information, try '--help'.\n",
    );
}

#[test]
fn a_wrong_repository_is_found_before_anything_is_built() {
    let done = dist(&["--push", "not a name"]);
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.starts_with("error: cannot use the repository `not a name`: "),
        "{}",
        done.stderr
    );
    assert!(!done.stderr.contains("$ cargo"), "{}", done.stderr);
}
