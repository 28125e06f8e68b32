//! `cargo xtask lint`: that what it looks for in workflows is found.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::built::{Done, done};

const FINE: &str = "\
name: fine
on: [push]
permissions: {}
concurrency: { group: fine, cancel-in-progress: true }
jobs:
  one:
    name: one
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    steps:
      - name: Say hello
        run: echo hello
";

fn workflows(folder: &Path) -> Done {
    done(Command::new(env!("CARGO_BIN_EXE_xtask")).args(["lint", "--workflows"]).arg(folder))
}

#[track_caller]
fn finds(text: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("broken.yml"), text).unwrap();
    let done = workflows(folder.path());
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains(expected), "{}", done.stderr);
}

#[test]
fn workflows_without_a_fault_pass() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("fine.yml"), FINE).unwrap();
    let done = workflows(folder.path());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
}

#[test]
fn a_job_that_waits_for_one_that_is_not_there_is_found() {
    let text = FINE.replace("    timeout", "    needs: [two]\n    timeout");
    finds(&text, "job \"one\" needs job \"two\" which does not exist");
}

#[test]
fn a_runner_that_does_not_exist_is_found() {
    finds(&FINE.replace("ubuntu-24.04", "ubuntu-24.05"), "label \"ubuntu-24.05\" is unknown");
}

#[test]
fn what_a_stranger_writes_does_not_reach_the_shell() {
    let text = FINE.replace("echo hello", "echo '${{ github.event.head_commit.message }}'");
    finds(&text, "is potentially untrusted");
}

#[test]
fn rights_are_given_to_single_jobs() {
    finds(&FINE.replace("permissions: {}", "permissions: write-all"), "excessive-permissions");
}
