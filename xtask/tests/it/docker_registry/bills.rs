//! What `dist --push` attaches to the images.

use serde_json::Value;

use super::server::{Door, Server};
use crate::built::host;
use crate::dist::{dist_in, place, succeeds};

#[test]
fn dist_attaches_its_bill_of_materials_to_every_image() {
    let server = Server::start(&Door::Open);
    let (place, host) = (place(), host());
    let repository = format!("{}/pid1", server.address);
    let line = ["--platform", &host, "--no-smoke", &host, "--push", &repository];
    for _ in 0..2 {
        let pushed = succeeds(dist_in(place.path(), &line)).stdout;
        assert_eq!(pushed.lines().count(), 3);
        for (reference, name) in pushed.lines().zip(["scratch", "static", "docker-testing"]) {
            let (_, digest) = reference.split_once('@').unwrap();
            let bill = format!("dist/release/image-{name}.cdx.json");
            let bill = std::fs::read(place.path().join(bill)).unwrap();
            assert!(attached(&server, digest) == bill, "{name}");
        }
    }
}

/// The one file that is attached to `digest`; this registry has no referrers API.
pub fn attached(server: &Server, digest: &str) -> Vec<u8> {
    let (status, list) = server.get("pid1", &format!("manifests/{}", digest.replace(':', "-")));
    assert_eq!(status, 200);
    listed(server, digest, &list)
}

/// The one file in the list of what is attached to `digest`.
fn listed(server: &Server, digest: &str, list: &[u8]) -> Vec<u8> {
    let list: Value = serde_json::from_slice(list).unwrap();
    let [entry] = list["manifests"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(entry["artifactType"], "application/vnd.cyclonedx+json");
    let path = format!("manifests/{}", entry["digest"].as_str().unwrap());
    let manifest: Value = serde_json::from_slice(&server.get("pid1", &path).1).unwrap();
    assert_eq!(manifest["subject"]["digest"], digest);
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    server.get("pid1", &format!("blobs/{layer}")).1
}

mod ferro {
    use super::*;

    #[test]
    fn a_registry_with_the_referrers_api_lists_the_bill_of_materials() {
        let server = Server::ferro();
        let (place, host) = (place(), host());
        let repository = format!("{}/pid1", server.address);
        let line = ["scratch", "--platform", &host, "--no-smoke", &host, "--push", &repository];
        let pushed = succeeds(dist_in(place.path(), &line)).stdout;
        let (_, digest) = pushed.trim().split_once('@').unwrap();
        let (status, list) = server.get("pid1", &format!("referrers/{digest}"));
        assert_eq!(status, 200);
        let bill = std::fs::read(place.path().join("dist/release/image-scratch.cdx.json")).unwrap();
        assert_eq!(listed(&server, digest, &list), bill);
        assert!(!server.tags("pid1").iter().any(|tag| tag.starts_with("sha256-")));
    }
}
