//! The steps of `cargo xtask release` that publish, as they are after a failure: one by one, again,
//! and from what another job has built. GitHub and cosign are played by scripts that keep notes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::release::{VERSION, republish};
use super::server::{Door, Server};
use crate::built::{Done, copy, done, host};
use crate::dist::{dist_in, place, succeeds};
use crate::release::names;

/// A release is a folder: its assets, its notes, and whether people can see it.
const GH: &str = r#"#!/bin/sh
set -eu
cd "$NOTES"
words="$*"
case "$2" in
view) [ -d assets ] || { echo "release not found" >&2; exit 1; } ;;
esac
case "$words" in
*"--json isDraft"*) cat shown ;;
*"--json assets"*) ls assets ;;
"release create"*) mkdir assets; echo '{"isDraft":true}' > shown ;;
"release edit"*--draft=false*) echo '{"isDraft":false}' > shown; echo "$words" > published ;;
"release edit"*) echo "$words" > edited ;;
"release delete-asset"*) rm "assets/$4" ;;
"release upload"*) for file; do case "$file" in /*) cp "$file" assets ;; esac; done ;;
esac
"#;

const COSIGN: &str = r#"#!/bin/sh
set -eu
cd "$NOTES"
for last; do :; done
case "$1" in
verify) grep -qxF "$last" signed ;;
sign) echo "$last" >> signed ;;
sign-blob) echo signature > "$4" ;;
esac
"#;

/// A registry, what a build has left, and the notes of the scripts.
struct Setting {
    server: Server,
    target: TempDir,
    notes: TempDir,
}

impl Setting {
    fn new() -> Setting {
        let (server, built, host) = (Server::start(&Door::Open), place(), host());
        let line = ["--platform", &host, "--no-smoke", &host];
        succeeds(dist_in(built.path(), &line));
        // As the next job gets it: nothing but this folder.
        let (target, notes) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        copy(&built.path().join("dist"), &target.path().join("dist"));
        let bin = notes.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for (name, script) in [("gh", GH), ("cosign", COSIGN)] {
            fs::write(bin.join(name), script).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Setting { server, target, notes }
    }

    /// Takes the steps without cargo, which the job that signs must not run.
    fn release(&self, steps: &[&str]) -> Done {
        let repository = format!("--repository={}/pid1", self.server.address);
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("release").args(steps).args(["--without-distributions", &repository]);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.bin())).env_remove("CARGO");
        command.env("NOTES", self.notes.path()).env("CARGO_TARGET_DIR", self.target.path());
        done(&mut command)
    }

    fn bin(&self) -> String {
        self.notes.path().join("bin").display().to_string()
    }

    fn note(&self, name: &str) -> String {
        fs::read_to_string(self.notes.path().join(name)).unwrap_or_default()
    }

    /// Everything that somebody may see of the release.
    fn seen(&self) -> [Vec<String>; 4] {
        let folder: &Path = &self.notes.path().join("assets");
        let signed = self.note("signed").replace(&self.server.address, "REGISTRY");
        let lines = |text: &str| text.lines().map(String::from).collect();
        let tags = self.server.tags("pid1");
        [names(folder), lines(&signed), lines(&self.note("published")), tags]
    }
}

const STEPS: [&str; 5] = ["push", "tag", "draft", "sign", "publish"];

#[test]
fn steps_that_are_repeated_end_as_one_call_does() {
    let (whole, single) = (Setting::new(), Setting::new());
    succeeds(whole.release(&STEPS));
    for step in STEPS {
        for _ in 0..2 {
            succeeds(single.release(&[step]));
        }
    }
    assert_eq!(single.seen(), whole.seen());
    let [assets, signed, published, _] = whole.seen();
    assert!(assets.contains(&"SHA256SUMS.sigstore.json".to_string()), "{assets:?}");
    assert_eq!((signed.len(), published.len()), (3, 1));

    let again = succeeds(whole.release(&STEPS));
    assert!(again.stderr.contains(" is published, and stays as it is\n"), "{}", again.stderr);
    assert_eq!(single.seen(), whole.seen());
}

#[test]
fn a_draft_becomes_what_was_built_now() {
    let setting = Setting::new();
    succeeds(setting.release(&["push", "tag", "draft", "sign"]));
    fs::write(setting.notes.path().join("assets/linux-amd64"), "of a build before").unwrap();
    succeeds(setting.release(&["draft"]));
    let [assets, ..] = setting.seen();
    let mut expected = names(&setting.target.path().join("dist/release"));
    expected.push("SHA256SUMS.sigstore.json".to_string());
    expected.sort();
    assert_eq!(assets, expected);
    assert!(setting.note("edited").contains("--notes-file"), "{}", setting.note("edited"));
}

#[test]
fn an_attestation_is_published_under_a_name_of_its_own() {
    let setting = Setting::new();
    let bundle = setting.notes.path().join("whatever.jsonl");
    fs::write(&bundle, "attested").unwrap();
    succeeds(setting.release(&["push", "tag", "draft"]));
    succeeds(setting.release(&["publish", "--attestation", bundle.to_str().unwrap()]));
    assert_eq!(setting.note("assets/attestation.sigstore.json"), "attested");
}

#[test]
fn a_backport_is_not_the_latest_release() {
    let setting = Setting::new();
    succeeds(setting.release(&["push", "tag", "draft"]));
    let own = format!("{}-static", env!("CARGO_PKG_VERSION"));
    republish(&setting.server, &own, "latest", VERSION, "99.0.0");
    succeeds(setting.release(&["publish"]));
    assert!(setting.note("published").contains(" --latest=false"), "{}", setting.note("published"));
}

#[test]
fn the_next_job_needs_nothing_but_what_was_built() {
    let (setting, host) = (Setting::new(), host());
    let steps = ["push", "smoke", "tag", "draft", "sign", "publish", "--dry-run", "--platform"];
    let done = succeeds(setting.release(&[&steps[..], &[&host]].concat()));
    assert_eq!(done.stderr.matches("pulled ").count(), 3, "{}", done.stderr);
    assert!(done.stderr.contains(" passed"), "{}", done.stderr);
}
