//! Blobs that are taken from another repository of the same registry.

use super::server::{Door, Server};
use super::{LACKING, project};
use crate::push::fixture::Project;
use crate::push::proxy::{Fault, Proxy, Stage};

/// A registry that has the image in `old`, behind a proxy that has seen nothing yet.
fn setting() -> (Server, Project, Proxy) {
    let (server, project) = (Server::start(&Door::Open), project());
    let proxy = Proxy::start(Some(&server.address));
    project.push(&[&format!("{}/old", proxy.address), "scratch"]);
    proxy.forget();
    (server, project, proxy)
}

/// Pushes both images into `new`, mounting from `old`; how many requests there were of each stage,
/// and the line about blobs.
fn push(project: &Project, proxy: &Proxy) -> (Vec<usize>, String) {
    let (old, new) = (format!("{}/old", proxy.address), format!("{}/new", proxy.address));
    let run = project.push(&[&new, "scratch", "static", "--mount-from", &old]);
    let seen = proxy.seen();
    let count = |stage| seen.iter().filter(|it| it.stage == stage).count();
    let counts = [Stage::Mount, Stage::UploadPost, Stage::UploadPut].map(count).to_vec();
    let line = run.stderr.lines().find(|line| line.starts_with("blobs: "));
    (counts, line.unwrap_or_default().to_string())
}

#[test]
fn what_the_other_repository_has_is_mounted_and_the_rest_is_uploaded() {
    let (server, project, proxy) = setting();
    let (counts, line) = push(&project, &proxy);
    // Each is tried; six are in `static` alone, and go where the registry says at once.
    assert_eq!(counts, [17, 0, 6], "{:?}", proxy.seen());
    assert_eq!(line, "blobs: 6 uploaded (2.87 MiB), 11 mounted, 0 already there");
    server.has_all("new", &project, "scratch");
    server.has_all("new", &project, "static");
}

#[test]
fn a_registry_that_refuses_to_mount_gets_uploads() {
    for status in ["400 Bad Request", "403 Forbidden", "405 Method Not Allowed"] {
        let (server, project, proxy) = setting();
        proxy.set(Stage::Mount, Fault::Answer(status, "", ""), usize::MAX);
        let (counts, line) = push(&project, &proxy);
        assert_eq!(counts, [17, 17, 17], "{status}");
        assert_eq!(line, "blobs: 17 uploaded (5.74 MiB), 0 already there");
        server.has_all("new", &project, "scratch");
        server.has_all("new", &project, "static");
    }
}

#[test]
fn a_dry_run_tells_what_would_be_mounted() {
    let (server, project, proxy) = setting();
    let (old, new) = (format!("{}/old", proxy.address), format!("{}/new", proxy.address));
    let run = project.push(&[&new, "scratch", "static", "--mount-from", &old, "--dry-run"]);
    let count = |start: &str| run.stdout.lines().filter(|it| it.starts_with(start)).count();
    let blobs = (format!("mount {old}@sha256:"), format!("blob {new}@sha256:"));
    assert_eq!((count(&blobs.0), count(&blobs.1)), (11, 6), "{}", run.stdout);
    assert_eq!(server.get("new", "tags/list").0, 404);
}

#[test]
fn without_the_option_nothing_is_mounted() {
    let (server, project, proxy) = setting();
    let new = format!("{}/new", proxy.address);
    let run = project.push(&[&new, "scratch"]);
    assert!(proxy.seen().iter().all(|it| it.stage != Stage::Mount));
    let expected = format!("scratch: {LACKING}\nblobs: 11 uploaded (2.87 MiB), 0 already there\n");
    assert!(run.stderr.contains(&expected), "{}", run.stderr);
    server.has_all("new", &project, "scratch");
}

#[test]
fn another_registry_cannot_be_mounted_from() {
    let project = Project::new(&["scratch"], &["linux/amd64"], 1000);
    project.cannot_push(
        &["127.0.0.1:1/new", "scratch", "--mount-from=127.0.0.1:2/old"],
        "error: cannot mount blobs from `127.0.0.1:2/old`: it is in another registry than \
         `127.0.0.1:1/new`",
    );
}
