//! Images that stand in for those of registries that cannot be reached from here: small, under the
//! same names, for the same platforms.

pub mod packages;

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::docker_registry::server::Server;

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Every platform that an image of ours on a base has.
pub const PLATFORMS: [&str; 8] = [
    "linux/amd64",
    "linux/arm64/v8",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/386",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
];

/// A layer: its type, its bytes, and the digest of what was compressed.
#[derive(Clone)]
pub struct Layer {
    pub kind: String,
    pub bytes: Vec<u8>,
    pub diff_id: String,
}

impl Layer {
    pub fn digest(&self) -> String {
        sha256(&self.bytes)
    }
}

/// A base for some platforms, each with the same layers but for one of its own.
pub struct Standin {
    pub platforms: Vec<&'static str>,
    pub layers: Vec<Layer>,
    /// The platforms' own layers; where there is none, it only says which platform it is.
    pub own: BTreeMap<&'static str, Layer>,
    /// What its configuration says under `config`.
    pub config: Value,
    /// How many of the layers it does not know.
    pub unknown: usize,
    pub manifest_kind: &'static str,
    pub index_kind: &'static str,
}

impl Standin {
    /// Laid out as Debian is: `/sbin` is a link.
    pub fn debian() -> Standin {
        let files = ["usr/", "usr/bin/", "usr/bin/bash=bash", "usr/sbin/", "sbin>usr/sbin"];
        let config = json!({ "Cmd": ["bash"], "Env": ["PATH=/usr/bin:/bin"] });
        Standin {
            platforms: PLATFORMS.to_vec(),
            layers: vec![gzip(&files)],
            own: BTreeMap::new(),
            config,
            unknown: 0,
            manifest_kind: MANIFEST,
            index_kind: INDEX,
        }
    }

    /// Uploads it; gives the digest of its index.
    #[track_caller]
    pub fn push(&self, server: &Server, repository: &str, tag: &str) -> String {
        let manifests = self.platforms.iter().map(|it| self.push_platform(server, repository, it));
        let mut manifests: Vec<_> = manifests.collect();
        // What docker's builder leaves beside them.
        let mut attestation = manifests[0].clone();
        attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        manifests.push(attestation);
        let kind = self.index_kind;
        let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests });
        let index = serde_json::to_vec_pretty(&index).unwrap();
        server.put_manifest(repository, tag, kind, &index);
        sha256(&index)
    }

    fn push_platform(&self, server: &Server, repository: &str, platform: &str) -> Value {
        let mut parts = platform.split('/').skip(1);
        let mut of = json!({ "os": "linux", "architecture": parts.next() });
        if let Some(variant) = parts.next() {
            of["variant"] = json!(variant);
        }
        let marker = gzip(&["etc/", &format!("etc/platform={platform}")]);
        let own = self.own.get(platform).unwrap_or(&marker);
        let layers: Vec<_> = self.layers.iter().chain([own]).collect();
        let diff_ids: Vec<_> = layers.iter().skip(self.unknown).map(|it| &it.diff_id).collect();
        let mut config = of.clone();
        config["config"] = self.config.clone();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        config["history"] = json!([{ "created_by": "a debootstrap" }, { "created_by": "own" }]);
        let config = serde_json::to_vec_pretty(&config).unwrap();
        let put = |kind: &str, bytes: &[u8]| {
            let digest = sha256(bytes);
            server.put_blob(repository, &digest, bytes);
            json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
        };
        let manifest = serde_json::to_vec_pretty(&json!({
            "schemaVersion": 2,
            "mediaType": self.manifest_kind,
            "config": put(CONFIG, &config),
            "layers": layers.iter().map(|it| put(&it.kind, &it.bytes)).collect::<Vec<_>>(),
        }))
        .unwrap();
        let digest = sha256(&manifest);
        server.put_manifest(repository, &digest, self.manifest_kind, &manifest);
        let size = manifest.len();
        json!({ "mediaType": self.manifest_kind, "digest": digest, "size": size, "platform": of })
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layer of files: `name/` is a folder, `name>target` a link, `name=text` a file.
pub fn gzip(files: &[&str]) -> Layer {
    packed(&tar(files))
}

/// A layer of this tar.
pub fn packed(tar: &[u8]) -> Layer {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(tar).unwrap();
    Layer { kind: GZIP.to_string(), bytes: packed.finish().unwrap(), diff_id: sha256(tar) }
}

/// The same as a tar.
pub fn tar(files: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(0);
        if let Some((path, target)) = file.split_once('>') {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, path, target).unwrap();
        } else if let Some((path, text)) = file.split_once('=') {
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        } else {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, file, std::io::empty()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}
