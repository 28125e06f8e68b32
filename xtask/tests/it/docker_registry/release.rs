//! `cargo xtask release`, rehearsed: all of it but for what cosign and GitHub do.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::project;
use super::reproduce::published;
use super::server::{Door, INDEX, Server};
use crate::built::{Done, copied, copy, done, host, target, xtask_in};
use crate::standins::sha256;

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
    command.arg("--without-distributions");
    succeeds(done(command.env("CARGO_TARGET_DIR", place)))
}

/// What gh and cosign would be told, without the folders and the files' names.
fn told(done: &Done) -> Vec<String> {
    let lines = done.stdout.lines().filter(|it| it.starts_with("gh ") || it.starts_with("cosign "));
    lines.map(|it| it.split(" /").next().unwrap().to_string()).collect()
}

/// Whether general tags move with this version.
fn is_final() -> bool {
    semver::Version::parse(env!("CARGO_PKG_VERSION")).unwrap().pre.is_empty()
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
    let is_final = is_final();
    let shown = format!("--draft=false --prerelease={} --latest={is_final}", !is_final);
    expected.push(release(&format!("edit TAG --repo OWNER/NAME {shown}")));
    assert_eq!(told(&first), expected);

    let tags = server.tags("pid1");
    assert!(tags.contains(&format!("{version}-scratch")));
    assert_eq!(tags.contains(&"latest".to_string()), is_final);
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

/// Puts what the tag `from` points at under the tag `to`, with a change of its annotations.
pub fn republish(server: &Server, from: &str, to: &str, name: &str, value: &str) -> String {
    let (status, bytes) = server.get("pid1", &format!("manifests/{from}"));
    assert_eq!(status, 200);
    let mut index: Value = serde_json::from_slice(&bytes).unwrap();
    index["annotations"][name] = json!(value);
    let changed = index.to_string().into_bytes();
    server.put_manifest("pid1", to, INDEX, &changed);
    sha256(&changed)
}

fn digest(server: &Server, tag: &str) -> String {
    sha256(&server.get("pid1", &format!("manifests/{tag}")).1)
}

/// Moves the tags of what was built, for real.
fn tag(place: &Path, server: &Server) -> Done {
    let repository = format!("{}/pid1", server.address);
    let mut command = xtask_in(place);
    command.args(["release", "tag", "--without-distributions", "--repository", &repository]);
    done(&mut command)
}

pub const VERSION: &str = "org.opencontainers.image.version";

#[test]
fn a_release_that_is_run_again_moves_no_tag_back() {
    let (server, place) = (Server::start(&Door::Open), copied());
    succeeds(tag(place.path(), &server));
    let own = format!("{}-static", env!("CARGO_PKG_VERSION"));
    let (released, version) = (digest(&server, &own), env!("CARGO_PKG_VERSION"));
    // As the next version leaves it, as a refresh does, and as an older version did.
    let next = republish(&server, &own, "latest", VERSION, "99.0.0");
    let refreshed = republish(&server, &own, "static", "org.example.base", "newer");
    republish(&server, &own, "scratch", VERSION, "0.0.1");
    let again = succeeds(tag(place.path(), &server));
    assert_eq!(digest(&server, "latest"), next);
    assert_eq!(digest(&server, "static"), refreshed);
    assert_eq!(digest(&server, &own), released);
    if is_final() {
        let own = format!("{version}-scratch");
        assert_eq!(digest(&server, "scratch"), digest(&server, &own));
        for left in ["latest: left where it is, at version 99.0.0", "static: left where it is"] {
            assert!(again.stderr.contains(left), "{}", again.stderr);
        }
    }
}

#[test]
fn a_version_that_is_published_is_never_replaced() {
    let (server, place) = (Server::start(&Door::Open), copied());
    succeeds(tag(place.path(), &server));
    let own = format!("{}-static", env!("CARGO_PKG_VERSION"));
    let built = digest(&server, &own);
    let there = republish(&server, &own, &own, "org.example.other", "commit");
    let refused = tag(place.path(), &server);
    let expected = format!(
        "error: cannot release v{}: step `tag`: cannot move `{own}`: it is {there}, and {built} \
         here; what is published never changes, so give this a version of its own\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.ends_with(&expected), "{}", refused.stderr);
    assert_eq!(digest(&server, &own), there);
}

#[test]
fn a_release_without_the_distributions_is_one_on_purpose() {
    let place = copied();
    fs::write(place.path().join("empty.lock"), "").unwrap();
    let mut command = xtask_in(place.path());
    command.args(["release", "tag", "--repository", "127.0.0.1:1/pid1", "--lock-file"]);
    let done = done(command.arg(place.path().join("empty.lock")));
    let expected = "error: cannot release every image; `--without-distributions` leaves out those \
                    on distributions: cannot build the image `alpine`: its base \
                    `docker.io/library/alpine:3.22` is not locked, run `cargo xtask lock alpine`\n";
    assert_eq!((done.code, done.stderr.as_str()), (Some(1), expected));
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

#[test]
fn what_a_rehearsal_has_pushed_is_reproduced() {
    let (server, place, published) = (Server::start(&Door::Open), place(), published());
    let repository = format!("{}/pid1", server.address);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let command = published.built_from_it(&mut command).env("CARGO_TARGET_DIR", place.path());
    command.args(["release", "--dry-run", "--without-distributions", "--platform", &host()]);
    succeeds(done(command.args(["--repository", &repository])));
    let tag = format!("{repository}:{}-static", env!("CARGO_PKG_VERSION"));
    let release = place.path().join("dist/release").display().to_string();
    let same = succeeds(done(&mut published.reproduce(&[&tag, &release])));
    let expected = format!("reproduced {tag}@{}\n", digest(&server, &tag[repository.len() + 1..]));
    assert_eq!(same.stdout, format!("{expected}reproduced {release}\n"));
}
