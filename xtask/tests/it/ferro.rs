//! Pushing to a registry with the referrers API, ferro-oci-server.

use serde_json::Value;

use crate::docker_registry::attach::{TYPE, attach, attached, belongs};
use crate::docker_registry::faults::{STAGES, each_row, stays};
use crate::docker_registry::server::{Server, get};
use crate::push::fixture::Project;

fn setting() -> (Server, Project, String) {
    let (server, project) =
        (Server::ferro(), Project::new(&["scratch", "static"], &["linux/amd64"], 300_000));
    let repository = format!("{}/pid1", server.address);
    project.push(&[&repository, "scratch", "static"]);
    (server, project, repository)
}

#[test]
fn what_was_built_is_what_is_there() {
    let (server, project, repository) = setting();
    server.has_all("pid1", &project, "scratch");
    server.has_all("pid1", &project, "static");
    let second = project.push(&[&repository, "scratch", "static"]);
    assert!(second.stderr.contains("blobs: 0 uploaded (0 B), "), "{}", second.stderr);
}

#[test]
fn what_is_attached_is_listed_by_the_api_and_no_tag() {
    let (server, project, repository) = setting();
    let tags = server.tags("pid1");
    let run = attach(&project, &repository, "sbom.json");
    let (digest, index) = (attached(&run), project.index("scratch").0);
    let said = format!("attached sbom.json ({TYPE}) to {index}: the registry lists it\n");
    assert_eq!(run.stderr, said);
    belongs(&server, &project, "pid1", &digest, "sbom.json");
    let (_, list) = get(&server.address, &format!("/v2/pid1/referrers/{index}"), "");
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list["manifests"][0]["digest"], digest, "{list}");
    assert_eq!(server.tags("pid1"), tags);
}

#[test]
fn a_fault_that_stays_moves_no_tag_and_the_next_push_completes() {
    each_row("staying-ferro", Server::ferro, STAGES, stays);
}

mod skopeo {
    use super::*;
    use crate::push::fixture::tool;

    #[test]
    fn skopeo_reads_and_pulls_what_was_pushed() {
        let (_server, project, repository) = setting();
        let reference = format!("docker://{repository}:static");
        let folder = project.folder.path();
        let raw = tool("skopeo", &["inspect", "--tls-verify=false", "--raw", &reference], folder);
        assert_eq!(raw.as_bytes(), project.index("static").1);
        let copy = ["copy", "--quiet", "--all", "--src-tls-verify=false", &reference];
        tool("skopeo", &[&copy[..], &["oci:pulled:static"]].concat(), folder);
        let pulled = std::fs::read_to_string(folder.join("pulled/index.json")).unwrap();
        assert!(pulled.contains(&project.index("static").0), "{pulled}");
    }
}

mod oras {
    use super::*;
    use crate::docker_registry::attach::oras::discovers;

    #[test]
    fn oras_discovers_what_is_attached() {
        let (_server, project, repository) = setting();
        let digest = attached(&attach(&project, &repository, "sbom.json"));
        discovers(&project, &repository, &digest);
    }
}

mod crane {
    use super::*;
    use crate::docker_registry::crane::validates;

    #[test]
    fn crane_validates_and_pulls_what_was_pushed() {
        validates(&Server::ferro());
    }
}
