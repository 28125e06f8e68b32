//! Attaching files to an image in a registry without the referrers API.

use std::fs;

use serde_json::Value;

use super::faults::{Row, each_row, open};
use super::project;
use super::server::{Door, Server};
use crate::push::fixture::{Project, Run, fails, run};
use crate::push::proxy::{Fault, Proxy, Stage};

/// What the files are said to be.
pub const TYPE: &str = "application/spdx+json";

/// Where it goes wrong, and what the error then says.
const STAGES: &[(Stage, &str)] = &[
    (Stage::Ping, "cannot reach the registry `"),
    (Stage::ManifestGet, "cannot pull `scratch`"),
    (Stage::BlobHead, "cannot look for an empty config"),
    (Stage::UploadPost, "cannot upload an empty config"),
    (Stage::UploadPut, "cannot upload an empty config"),
    (Stage::ManifestPut, "cannot push the manifest of `sbom.json`"),
    (Stage::TagHead, "cannot look for the tag `sha256-"),
    (Stage::TagPut, "cannot move the tag `sha256-"),
];

/// Attaches the file `name`, which is made of its own name, to the image `scratch`.
pub fn attach(project: &Project, repository: &str, name: &str) -> Run {
    // Its own folder: many attach a file of this name at once.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, name).unwrap();
    let (image, path) = (format!("{repository}:scratch"), path.display().to_string());
    run(&mut project.xtask(&["attach", &image, &path, "--type", TYPE, "--timeout=1"]))
}

/// The digest that was printed.
#[track_caller]
pub fn attached(run: &Run) -> String {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.stdout.trim().split_once('@').expect("it prints a reference").1.to_string()
}

/// The manifest `digest` says that the file `name` belongs to the image `scratch`.
#[track_caller]
pub fn belongs(server: &Server, project: &Project, repository: &str, digest: &str, name: &str) {
    let (status, manifest) = server.get(repository, &format!("manifests/{digest}"));
    assert_eq!(status, 200);
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let (index, bytes) = project.index("scratch");
    assert_eq!(manifest["subject"]["digest"], index);
    assert_eq!(manifest["subject"]["size"], bytes.len());
    assert_eq!(manifest["subject"]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(manifest["artifactType"], TYPE);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], TYPE);
    assert_eq!(layer["annotations"]["org.opencontainers.image.title"], name);
    let blob = format!("blobs/{}", layer["digest"].as_str().unwrap());
    assert_eq!(server.get(repository, &blob), (200, name.as_bytes().to_vec()));
}

/// The tag that lists what is attached to `scratch`, and the digests in it.
fn listed(server: &Server, project: &Project, repository: &str) -> (String, Vec<String>) {
    let tag = project.index("scratch").0.replace(':', "-");
    let (status, index) = server.get(repository, &format!("manifests/{tag}"));
    if status == 404 {
        return (tag, Vec::new());
    }
    let index: Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let entries = index["manifests"].as_array().unwrap();
    assert!(entries.iter().all(|it| it["artifactType"] == TYPE));
    (tag, entries.iter().map(|it| it["digest"].as_str().unwrap().to_string()).collect())
}

#[test]
fn what_is_attached_is_listed_by_a_tag() {
    let (server, project) = (Server::start(&Door::Open), project());
    let repository = format!("{}/pid1", server.address);
    project.push(&[&repository, "scratch"]);
    let first = attach(&project, &repository, "sbom.json");
    let digest = attached(&first);
    belongs(&server, &project, "pid1", &digest, "sbom.json");
    let (tag, digests) = listed(&server, &project, "pid1");
    assert_eq!(digests, [digest.as_str()]);
    assert_eq!(
        first.stderr,
        format!(
            "attached sbom.json ({TYPE}) to {}: the tag {tag} lists it, as the registry has no \
             referrers API\n",
            project.index("scratch").0
        )
    );
    let second = attached(&attach(&project, &repository, "other.json"));
    belongs(&server, &project, "pid1", &second, "other.json");
    assert_eq!(listed(&server, &project, "pid1").1, [digest, second]);
    server.has_all("pid1", &project, "scratch");
}

#[test]
fn what_is_attached_already_changes_nothing() {
    let (server, project) = (Server::start(&Door::Open), project());
    let proxy = Proxy::start(Some(&server.address));
    let repository = format!("{}/pid1", proxy.address);
    project.push(&[&repository, "scratch"]);
    let first = attached(&attach(&project, &repository, "sbom.json"));
    let count = |stage| proxy.seen().iter().filter(|it| it.stage == stage).count();
    // The control of the zeros below.
    assert_eq!(count(Stage::UploadPut), 11 + 2);
    assert_eq!(count(Stage::TagPut), 4 + 1);
    proxy.forget();
    assert_eq!(attached(&attach(&project, &repository, "sbom.json")), first);
    assert_eq!((count(Stage::UploadPut), count(Stage::TagPut)), (0, 0));
    assert_eq!(listed(&server, &project, "pid1").1, [first]);
}

#[test]
fn a_manifest_without_its_last_byte_is_not_taken_for_whole() {
    let (server, project) = (Server::start(&Door::Open), project());
    project.push(&[&format!("{}/pid1", server.address), "scratch"]);
    let proxy = Proxy::start(Some(&server.address));
    proxy.set(Stage::ManifestGet, Fault::CutEnd, usize::MAX);
    let run = attach(&project, &format!("{}/pid1", proxy.address), "sbom.json");
    let last = run.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("cannot pull `scratch`: the connection was dropped ("), "{last}");
    assert!(last.ends_with("; tried 4 times"), "{last}");
}

#[test]
fn nothing_is_attached_to_what_is_not_there() {
    let (server, project) = (Server::start(&Door::Open), project());
    let repository = format!("{}/pid1", server.address);
    fails(
        &attach(&project, &repository, "sbom.json"),
        &format!(
            "error: cannot attach to `scratch` in `{repository}`: cannot pull `scratch`: there is no \
             `scratch` in `{repository}`"
        ),
    );
}

#[test]
fn a_file_that_is_missing_is_found_before_anything_is_sent() {
    let project = Project::new(&[], &[], 0);
    let run = project.run(&["attach", "127.0.0.1:1/pid1:a", "/no/such", "--type", TYPE]);
    fails(&run, "error: cannot read `/no/such`: No such file or directory (os error 2)");
}

#[test]
fn a_fault_while_attaching_leaves_the_list_whole() {
    each_row("attaching", open, STAGES, |row: &Row| {
        let server = &row.server;
        row.project.push(&[&format!("{}/{}", server.address, row.name), "scratch"]);
        let repository = format!("{}/{}", row.proxy.address, row.name);
        row.proxy.set(row.stage, row.fault, usize::MAX);
        let run = attach(row.project, &repository, "sbom.json");
        let last = run.stderr.lines().last().unwrap_or_default().to_string();
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{}: {last}", row.name);
        assert!(last.contains(row.step) && last.contains(row.cause), "{}: {last}", row.name);
        let is_untold = row.is_untold();
        let count = listed(server, row.project, &row.name).1.len();
        assert_eq!(count, usize::from(is_untold), "{}", row.name);
        row.proxy.heal();
        let digest = attached(&attach(row.project, &repository, "sbom.json"));
        belongs(server, row.project, &row.name, &digest, "sbom.json");
        assert_eq!(listed(server, row.project, &row.name).1, [digest]);
        if is_untold { "listed; the next completes" } else { "not listed; the next completes" }
    });
}

pub mod oras {
    //! Where oras finds it, too.

    use super::*;
    use crate::push::fixture::tool;

    #[test]
    fn oras_discovers_what_is_attached() {
        let (server, project) = (Server::start(&Door::Open), project());
        let repository = format!("{}/pid1", server.address);
        project.push(&[&repository, "scratch"]);
        let digest = attached(&attach(&project, &repository, "sbom.json"));
        discovers(&project, &repository, &digest);
    }

    /// oras finds `digest` at the image `scratch`, and pulls the file.
    #[track_caller]
    pub fn discovers(project: &Project, repository: &str, digest: &str) {
        let folder = project.folder.path();
        let image = format!("{repository}:scratch");
        let found = tool("oras", &["discover", "--plain-http", "--format=json", &image], folder);
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["manifests"][0]["digest"], digest, "{found}");
        assert_eq!(found["manifests"][0]["artifactType"], TYPE);
        let artifact = format!("{repository}@{digest}");
        tool("oras", &["pull", "--plain-http", "--output=pulled", &artifact], folder);
        assert_eq!(fs::read(folder.join("pulled/sbom.json")).unwrap(), b"sbom.json");
    }
}
