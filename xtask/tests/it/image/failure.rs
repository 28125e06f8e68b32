//! What goes wrong is named, and leaves what was there.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use super::place::{PLATFORMS, Place, fails, listing, stderr, succeeds};

#[test]
fn a_missing_binary_says_what_to_run() {
    let place = Place::new();
    let binary = place.binary("linux/arm/v7", "pid1");
    fs::remove_file(&binary).unwrap();
    let error = fails(place.command().arg("scratch"));
    let expected = format!(
        "cannot read `{}`, run `cargo xtask build --platform linux/arm/v7`: No such file or \
         directory (os error 2)",
        binary.display()
    );
    assert_eq!(error, expected);
    assert!(!place.path().join("dist/oci").exists());
}

#[test]
fn an_unknown_image_names_the_images() {
    let error = fails(Place::new().command().arg("statik"));
    let known = "scratch, static, docker-testing, alpine, busybox, debian, distroless-base, \
                 distroless-static, ubuntu";
    assert_eq!(error, format!("no such image `statik`, the images are {known}"));
}

#[test]
fn an_unknown_platform_names_the_platforms() {
    let output = Place::new().command().args(["--platform", "linux/mips"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let known = PLATFORMS.join(", ");
    assert!(stderr(&output).contains(&format!("the platforms are {known}")), "{output:?}");
}

#[test]
fn a_date_that_is_no_number_is_named() {
    let error = fails(Place::new().command().env("SOURCE_DATE_EPOCH", "yesterday"));
    let expected = "cannot use SOURCE_DATE_EPOCH `yesterday`, give whole seconds: it is no number: \
                    invalid digit found in string";
    assert_eq!(error, expected);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let place = Place::new();
    fs::write(place.path().join("dist/oci"), "a file").unwrap();
    let error = fails(place.command().arg("scratch"));
    let expected =
        format!("cannot write `{}`: File exists (os error 17)", place.layout("scratch").display());
    assert_eq!(error, expected);
}

/// In a mount namespace of its own, the folder of the layouts is a file system of 256 KB: enough
/// for `scratch` once, and not for `static` beside it.
#[test]
fn a_full_disk_leaves_what_was_there() {
    let place = Place::new();
    let script = r#"
        set -e
        mkdir -p "$CARGO_TARGET_DIR/dist/oci" && cd "$CARGO_TARGET_DIR/dist/oci"
        mount -t tmpfs -o size=256k none . && cd .
        cd "$CARGO_TARGET_DIR/dist/oci"
        "$0" image --quiet static --platform linux/amd64
        before=$(find . -type f | sort | xargs sha256sum)
        SOURCE_DATE_EPOCH=1 "$0" image --quiet static && exit 9
        test "$before" = "$(find . -type f | sort | xargs sha256sum)"
        ls -A
    "#;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(env!("CARGO_BIN_EXE_xtask")).env("CARGO_TARGET_DIR", place.path());
    let output = command.output().unwrap();
    let error = format!(
        "error: cannot write `{}`: No space left on device (os error 28)\n",
        place.layout("static").display()
    );
    assert!(stderr(&output).ends_with(&error), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(stdout.lines().skip(1).collect::<Vec<_>>(), ["static"], "{output:?}");
    assert!(output.status.success(), "{output:?}");
}

/// The binary is a pipe, so that the build waits for us in the middle of its work.
#[test]
fn ctrl_c_leaves_what_was_there() {
    let place = Place::new();
    place.build(&["scratch"]);
    let before = listing(&place.path().join("dist/oci"));
    let binary = place.binary("linux/amd64", "pid1");
    fs::remove_file(&binary).unwrap();
    mkfifo(&binary, Mode::S_IRWXU).unwrap();
    let mut command = place.command();
    command.arg("scratch").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // It opens as soon as the other end is opened too.
    let mut pipe = fs::OpenOptions::new().write(true).open(&binary).unwrap();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    pipe.write_all(b"another").unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let error = "error: interrupted; what was half made has been removed\n";
    assert!(stderr(&output).ends_with(error), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    assert!(listing(&place.path().join("dist/oci")) == before);
}

#[test]
fn after_a_failure_the_next_run_carries_on() {
    let place = Place::new();
    let binary = place.binary("linux/386", "docker-testing");
    let bytes = fs::read(&binary).unwrap();
    fs::remove_file(&binary).unwrap();
    fails(&mut place.command());
    fs::write(&binary, bytes).unwrap();
    assert_eq!(succeeds(&mut place.command()).lines().count(), 3);
}
