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
fn attached(server: &Server, digest: &str) -> Vec<u8> {
    let json = |path: &str| -> Value {
        let (status, body) = server.get("pid1", path);
        assert_eq!(status, 200, "{path}");
        serde_json::from_slice(&body).unwrap()
    };
    let list = json(&format!("manifests/{}", digest.replace(':', "-")));
    let [entry] = list["manifests"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(entry["artifactType"], "application/vnd.cyclonedx+json");
    let manifest = json(&format!("manifests/{}", entry["digest"].as_str().unwrap()));
    assert_eq!(manifest["subject"]["digest"], digest);
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    server.get("pid1", &format!("blobs/{layer}")).1
}
