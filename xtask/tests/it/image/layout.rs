//! What is in a layout, and that it is the same wherever it was built.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use serde_json::{Value, json};

use super::place::{EPOCH, PLATFORMS, Place, entries, listing, stderr, succeeds};

const CREATED: &str = "2026-01-02T03:04:05Z";

/// The offset of "operating system" in the header of RFC 1952, and of the four bytes of time.
const GZIP_SYSTEM: usize = 9;
const GZIP_TIME: std::ops::Range<usize> = 4..8;

#[test]
fn two_builds_in_two_directories_are_the_same_bytes() {
    let (one, other) = (Place::new(), Place::new());
    let printed = one.build(&[]);
    let mut elsewhere = Command::new("sh");
    elsewhere.args(["-c", r#"umask 077 && cd / && exec "$0" image"#, env!("CARGO_BIN_EXE_xtask")]);
    elsewhere.env("CARGO_TARGET_DIR", other.path()).env("SOURCE_DATE_EPOCH", EPOCH);
    elsewhere.env("TZ", "Asia/Tokyo").env("LC_ALL", "tr_TR.UTF-8").env("USER", "somebody");
    assert_eq!(succeeds(&mut elsewhere), printed);
    for kind in ["oci", "context"] {
        let bytes = |place: &Place| -> Vec<_> {
            let listing = listing(&place.path().join("dist").join(kind));
            let name = |path: std::path::PathBuf| path.strip_prefix(place.path()).unwrap().into();
            listing.into_iter().map(|(path, it)| (name(path), it)).collect()
        };
        let (one, other): (Vec<(std::path::PathBuf, _)>, _) = (bytes(&one), bytes(&other));
        assert!(one == other, "{kind}");
    }
}

#[test]
fn stdout_has_one_digest_a_line() {
    let place = Place::new();
    let printed = place.build(&[]);
    let digest = |name| {
        let top = place.json(name, "index.json");
        top["manifests"][0]["digest"].as_str().unwrap().to_string()
    };
    let names = ["scratch", "static", "docker-testing"];
    let expected: Vec<_> = names.map(|name| format!("{name}@{}", digest(name))).into();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_layout_names_one_index_by_its_first_tag() {
    let place = Place::new();
    place.build(&["static"]);
    assert_eq!(place.json("static", "oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }));
    let top = place.json("static", "index.json");
    assert_eq!(top["manifests"].as_array().unwrap().len(), 1);
    let descriptor = &top["manifests"][0];
    assert_eq!(descriptor["mediaType"], "application/vnd.oci.image.index.v1+json");
    let tag = format!("{}-static", env!("CARGO_PKG_VERSION"));
    let names = json!({
        "org.opencontainers.image.ref.name": tag,
        "io.containerd.image.name": format!("docker.io/library/pid1:{tag}"),
    });
    assert_eq!(descriptor["annotations"], names);
}

#[test]
fn the_index_has_a_manifest_for_every_platform() {
    let place = Place::new();
    place.build(&["scratch"]);
    let name = |platform: &Value| {
        let variant = platform["variant"].as_str().map_or(String::new(), |it| format!("/{it}"));
        let text = |key: &str| platform[key].as_str().unwrap().to_string();
        format!("{}/{}{variant}", text("os"), text("architecture"))
    };
    let index = place.index("scratch");
    let manifests = index["manifests"].as_array().unwrap().iter();
    assert_eq!(manifests.map(|it| name(&it["platform"])).collect::<Vec<_>>(), PLATFORMS);
    let configurations = place.configurations("scratch");
    assert_eq!(configurations.iter().map(name).collect::<Vec<_>>(), PLATFORMS);
}

#[test]
fn only_the_chosen_platforms_are_built() {
    let place = Place::new();
    fs::remove_dir_all(place.path().join("dist/bin/linux-amd64")).unwrap();
    place.build(&["scratch", "--platform", "linux/s390x", "--platform", "linux/arm/v6"]);
    let configurations = place.configurations("scratch");
    let architectures: Vec<_> = configurations.iter().map(|it| &it["architecture"]).collect();
    assert_eq!(architectures, ["arm", "s390x"]);
}

#[test]
fn every_blob_has_the_size_and_the_digest_it_is_known_by() {
    let place = Place::new();
    place.build(&["docker-testing"]);
    let mut descriptors = vec![place.json("docker-testing", "index.json")["manifests"][0].clone()];
    let index = place.index("docker-testing");
    descriptors.extend(index["manifests"].as_array().unwrap().iter().cloned());
    for manifest in place.manifests("docker-testing") {
        descriptors.push(manifest["config"].clone());
        descriptors.extend(manifest["layers"].as_array().unwrap().iter().cloned());
    }
    for descriptor in &descriptors {
        let blob = place.blob("docker-testing", descriptor);
        assert_eq!(descriptor["size"], blob.len());
        let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&blob));
        assert_eq!(descriptor["digest"], format!("sha256:{hash}"));
    }
    let named = descriptors.iter().map(|it| it["digest"].as_str().unwrap());
    let named: std::collections::BTreeSet<_> = named.collect();
    let blobs = fs::read_dir(place.layout("docker-testing").join("blobs/sha256")).unwrap();
    assert_eq!(blobs.count(), named.len(), "there are blobs that nothing names");
}

#[test]
fn diff_ids_are_the_digests_of_the_layers_before_compression() {
    let place = Place::new();
    place.build(&["docker-testing"]);
    let manifests = place.manifests("docker-testing");
    for (manifest, configuration) in manifests.iter().zip(place.configurations("docker-testing")) {
        let layers = manifest["layers"].as_array().unwrap().iter();
        let diff_ids = layers.map(|layer| {
            let mut tar = Vec::new();
            let blob = place.blob("docker-testing", layer);
            let mut decoder = flate2::read::GzDecoder::new(blob.as_slice());
            std::io::Read::read_to_end(&mut decoder, &mut tar).unwrap();
            format!("sha256:{}", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&tar)))
        });
        assert_eq!(configuration["rootfs"]["diff_ids"], json!(diff_ids.collect::<Vec<_>>()));
        assert_eq!(configuration["history"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn the_init_is_the_same_blob_in_every_image() {
    let place = Place::new();
    place.build(&[]);
    let first_layers = |name| {
        let manifests = place.manifests(name).into_iter();
        manifests.map(|it| it["layers"][0]["digest"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(first_layers("scratch"), first_layers("static"));
    assert_eq!(first_layers("scratch"), first_layers("docker-testing"));
    let layer = place.blob("scratch", &place.manifests("scratch")[1]["layers"][0]);
    let files = entries(&layer);
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["sbin", "sbin/pid1"]);
    assert_eq!(files[1].1.mode, 0o755);
    assert_eq!(files[1].1.bytes, b"pid1 for linux/arm64");
}

#[test]
fn what_has_no_programs_is_one_blob_for_all_platforms() {
    let place = Place::new();
    place.build(&["static"]);
    let manifests = place.manifests("static");
    assert_eq!(manifests.len(), PLATFORMS.len());
    assert!(manifests.iter().all(|it| it["layers"][1] == manifests[0]["layers"][1]));
}

#[test]
fn the_configuration_says_how_to_run_it() {
    let place = Place::new();
    place.build(&["docker-testing", "static"]);
    let config = &place.configurations("docker-testing")[0]["config"];
    assert_eq!(config["Entrypoint"], json!(["/sbin/pid1"]));
    assert_eq!(config["Cmd"], json!(["ps"]));
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(config["Env"], json!([path]));
    assert_eq!(config["User"], Value::Null);
    assert_eq!(config["WorkingDir"], "/");
    assert_eq!(place.configurations("static")[0]["config"]["Cmd"], Value::Null);
}

#[test]
fn labels_are_also_the_annotations_of_manifest_and_index() {
    let place = Place::new();
    place.build(&["static"]);
    let labels = place.configurations("static")[3]["config"]["Labels"].clone();
    let label = |name: &str| labels[format!("org.opencontainers.image.{name}")].clone();
    assert_eq!(label("title"), "pid1 static");
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("source"), env!("CARGO_PKG_REPOSITORY"));
    assert_eq!(label("licenses"), "MIT AND CDLA-Permissive-2.0");
    assert_eq!(label("created"), CREATED);
    assert_eq!(place.manifests("static")[3]["annotations"], labels);
    assert_eq!(place.index("static")["annotations"], labels);
}

#[test]
fn everything_is_dated_source_date_epoch() {
    let place = Place::new();
    place.build(&["docker-testing"]);
    let configuration = &place.configurations("docker-testing")[0];
    assert_eq!(configuration["created"], CREATED);
    for entry in configuration["history"].as_array().unwrap() {
        assert_eq!(entry["created"], CREATED);
    }
    for layer in place.manifests("docker-testing")[0]["layers"].as_array().unwrap() {
        let blob = place.blob("docker-testing", layer);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(blob.as_slice()));
        for entry in archive.entries().unwrap() {
            assert_eq!(entry.unwrap().header().mtime().unwrap().to_string(), EPOCH);
        }
    }
}

#[test]
fn without_source_date_epoch_the_commit_is_the_date() {
    let place = Place::new();
    let git = place.path().join("git");
    super::place::script(&git, "case $2 in log) echo 86400;; *) echo 0123abcd-dirty;; esac");
    let path = format!("{}:{}", place.path().display(), std::env::var("PATH").unwrap());
    succeeds(place.command().arg("scratch").env_remove("SOURCE_DATE_EPOCH").env("PATH", path));
    let labels = &place.index("scratch")["annotations"];
    assert_eq!(labels["org.opencontainers.image.created"], "1970-01-02T00:00:00Z");
    assert_eq!(labels["org.opencontainers.image.revision"], "0123abcd-dirty");
}

#[test]
fn without_git_the_date_is_1970_and_the_user_is_told() {
    let place = Place::new();
    let mut command = place.command();
    command.args(["--quiet", "scratch"]).env_remove("SOURCE_DATE_EPOCH").env("PATH", "/nowhere");
    let output = command.output().unwrap();
    let warning = "git knows no commit here: images are dated 1970; set SOURCE_DATE_EPOCH\n";
    assert_eq!(stderr(&output), warning);
    let labels = &place.index("scratch")["annotations"];
    assert_eq!(labels["org.opencontainers.image.created"], "1970-01-01T00:00:00Z");
    assert_eq!(labels["org.opencontainers.image.revision"], Value::Null);
}

#[test]
fn layers_are_sorted_and_say_nothing_of_the_machine() {
    let place = Place::new();
    place.build(&["docker-testing"]);
    for layer in place.manifests("docker-testing")[0]["layers"].as_array().unwrap() {
        let blob = place.blob("docker-testing", layer);
        assert_eq!(blob[GZIP_TIME], [0; 4]);
        assert_eq!(blob[GZIP_SYSTEM], 255);
        let files = entries(&blob);
        let names: Vec<_> = files.iter().map(|(name, _)| name).collect();
        assert!(names.is_sorted(), "{names:?}");
        for (name, file) in &files {
            let owner = if name == "home/nonroot" { (65532, 65532) } else { (0, 0) };
            assert_eq!(file.owner, owner, "{name}");
        }
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(blob.as_slice()));
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.header().username().unwrap(), Some(""));
            assert_eq!(entry.header().groupname().unwrap(), Some(""));
        }
    }
}

#[test]
fn a_second_run_is_up_to_date_and_touches_nothing() {
    let place = Place::new();
    let printed = place.build(&["static"]);
    let inode = |file: &str| fs::metadata(place.layout("static").join(file)).unwrap().ino();
    let before = inode("index.json");
    let output = place.command().arg("static").output().unwrap();
    let last = stderr(&output).lines().last().unwrap().to_string();
    assert_eq!(last, "image static: up to date for 9 platforms");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), printed);
    assert_eq!(inode("index.json"), before);
}

#[test]
fn a_changed_binary_changes_only_the_manifest_of_its_platform() {
    let place = Place::new();
    place.build(&["static"]);
    let before = place.index("static")["manifests"].clone();
    fs::write(place.binary("linux/arm/v7", "pid1"), "another").unwrap();
    place.build(&["static"]);
    let after = place.index("static")["manifests"].clone();
    let changed: Vec<_> = (0..PLATFORMS.len()).filter(|at| before[at] != after[at]).collect();
    assert_eq!(changed, [2]);
    assert_eq!(fs::read_dir(place.path().join("dist/oci")).unwrap().count(), 1);
}

#[test]
fn a_damaged_layout_is_built_again() {
    let place = Place::new();
    place.build(&["static"]);
    let before = listing(&place.layout("static"));
    let blobs = fs::read_dir(place.layout("static").join("blobs/sha256")).unwrap();
    let blob = blobs.last().unwrap().unwrap().path();
    fs::write(blob, "rubbish").unwrap();
    fs::write(place.layout("static").join("blobs/sha256/left-over"), "rubbish").unwrap();
    place.build(&["static"]);
    assert!(listing(&place.layout("static")) == before);
}
