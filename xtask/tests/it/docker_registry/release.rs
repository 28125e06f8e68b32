//! `cargo xtask release`, rehearsed: all of it but for what cosign and GitHub do.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::project;
use super::server::{Door, Server};
use crate::built::{Done, copied, copy, done, host, target, xtask_in};

#[track_caller]
fn succeeds(done: Done) -> Done {
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    done
}

#[test]
fn a_push_without_tags_can_be_had_by_digest_only() {
    let (server, project) = (Server::start(&Door::Open), project());
    let repository = format!("{}/pid1", server.address);
    let run = project.push(&[&repository, "scratch", "--untagged"]);
    assert_eq!(run.stdout, format!("{repository}@{}\n", project.index("scratch").0));
    server.has_contents("pid1", &project, "scratch");
    assert_eq!(server.tags("pid1"), Vec::<String>::new());
}

#[test]
fn smoke_tests_run_what_the_registry_has() {
    let (server, place) = (Server::start(&Door::Open), copied());
    let repository = format!("{}/pid1", server.address);
    let host = host();
    let smoke = |more: &[&str]| {
        let mut command = xtask_in(place.path());
        done(command.args(["smoke", "scratch", "--platform", &host]).args(more))
    };
    succeeds(done(xtask_in(place.path()).args(["push", &repository, "scratch"])));
    // Without the layout that was built, only the registry has anything to run.
    fs::remove_dir_all(place.path().join("dist/oci/scratch")).unwrap();
    assert_eq!(smoke(&[]).code, Some(1));
    let done = succeeds(smoke(&["--from", &repository]));
    assert!(done.stderr.contains("pulled scratch: sha256:"), "{}", done.stderr);
    assert!(done.stderr.contains(" passed\n"), "{}", done.stderr);
}

/// A target folder of the test's own with everything that was built.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for name in ["cross", "tools"] {
        symlink(fs::canonicalize(target()).unwrap().join(name), place.path().join(name)).unwrap();
    }
    fs::create_dir(place.path().join("dist")).unwrap();
    for name in ["dist/bin", "dist/oci", "dist/smoke"] {
        copy(&target().join(name), &place.path().join(name));
    }
    place
}

fn rehearse(place: &Path, repository: &str) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["release", "--dry-run", "--repository", repository, "--platform", &host()]);
    succeeds(done(command.env("CARGO_TARGET_DIR", place)))
}

/// What gh and cosign would be told, without the folders and the files' names.
fn told(done: &Done) -> Vec<String> {
    let lines = done.stdout.lines().filter(|it| it.starts_with("gh ") || it.starts_with("cosign "));
    lines.map(|it| it.split(" /").next().unwrap().to_string()).collect()
}

#[test]
fn a_release_is_rehearsed_and_repeated() {
    let (server, place) = (Server::start(&Door::Open), place());
    let repository = format!("{}/pid1", server.address);
    let first = rehearse(place.path(), &repository);
    let images = ["scratch", "static", "docker-testing"];
    let digests: Vec<_> = images
        .iter()
        .map(|image| {
            let line = first.stdout.lines().find(|it| it.starts_with(&format!("{image}@")));
            line.unwrap().split_once('@').unwrap().1.to_string()
        })
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let project = env!("CARGO_PKG_REPOSITORY").trim_start_matches("https://github.com/");
    let release = |words: &str| {
        let words = words.replace("TAG", &format!("v{version}"));
        format!("gh release {}", words.replace("OWNER/NAME", project))
    };
    let mut expected = vec![
        release("create TAG --repo OWNER/NAME --draft --verify-tag --title TAG --notes-file"),
        release("upload TAG --repo OWNER/NAME --clobber"),
    ];
    let sign = digests.iter().map(|digest| format!("cosign sign --yes {repository}@{digest}"));
    expected.extend(sign);
    expected.push("cosign sign-blob --yes --bundle".to_string());
    expected.push(release("upload TAG --repo OWNER/NAME --clobber"));
    expected.push(release("edit TAG --repo OWNER/NAME --draft=false --prerelease=false"));
    assert_eq!(told(&first), expected);

    let tags = server.tags("pid1");
    assert!(tags.contains(&format!("{version}-scratch")) && tags.contains(&"latest".to_string()));
    let subjects = fs::read_to_string(place.path().join("dist/signed/subjects.sha256")).unwrap();
    for (image, digest) in images.iter().zip(&digests) {
        let hex = digest.trim_start_matches("sha256:");
        assert!(subjects.contains(&format!("{hex}  {repository}:{version}-{image}\n")));
    }
    assert!(subjects.contains("  pid1-linux-amd64\n"), "{subjects}");

    let second = rehearse(place.path(), &repository);
    assert_eq!(second.stdout, first.stdout);
    assert!(second.stderr.contains("blobs: 0 uploaded (0 B), "), "{}", second.stderr);
    assert!(!second.stderr.contains(" tagged "), "{}", second.stderr);
}

#[test]
fn nothing_is_rehearsed_where_people_find_images() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let published = env!("CARGO_PKG_REPOSITORY").replace("https://github.com/", "ghcr.io/");
    command.args(["release", "--dry-run", "--repository", &published]);
    let expected = format!(
        "error: cannot rehearse in `{published}`, where people find images; name another\n"
    );
    let done = done(&mut command);
    assert_eq!((done.code, done.stderr), (Some(1), expected));
}
