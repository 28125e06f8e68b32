//! That an image built from a generated Dockerfile is ours, by whomever it was built.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::place::{Place, blob_path, files};

/// The Dockerfile of the image `name`.
pub fn path(name: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    top.join("images").join(name).join("Dockerfile")
}

/// What changes from commit to commit, as our build of `name` has it.
pub fn build_arguments(place: &Place, name: &str) -> Vec<String> {
    let labels = &place.index(name)["annotations"];
    let argument = |label: &str| {
        let value = labels[format!("org.opencontainers.image.{label}")].as_str();
        format!("--build-arg={}={}", label.to_uppercase(), value.unwrap_or_default())
    };
    ["version", "revision", "created"].map(argument).into()
}

/// Compares the one image of `layout` with ours for the first platform.
#[track_caller]
pub fn is_ours(place: &Place, name: &str, layout: &Path) {
    let read = |descriptor: &Value| -> Value {
        serde_json::from_slice(&fs::read(blob_path(layout, descriptor)).unwrap()).unwrap()
    };
    let top = fs::read(layout.join("index.json")).unwrap();
    let mut manifest = serde_json::from_slice::<Value>(&top).unwrap();
    while manifest.get("manifests").is_some() {
        manifest = read(&manifest["manifests"][0]);
    }
    let mut theirs = read(&manifest["config"]);
    // BuildKit's, and of no meaning but on Windows.
    theirs["config"].as_object_mut().unwrap().remove("ArgsEscaped");
    let ours = &place.configurations(name)[0];
    for key in ["architecture", "variant", "os", "config"] {
        assert_eq!(theirs[key], ours[key], "{key}");
    }
    let (ours, mut theirs) = (place.files(name), files(layout, &manifest));
    // Podman also writes down the root itself.
    theirs.remove("");
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    for (path, ours) in &ours {
        assert_eq!(&theirs[path], ours, "{path}");
    }
}
