//! Dockerfiles that use this very build, by digest and by checksum.

use std::fmt::Write as _;

use anyhow::Result;

use super::digests::{Digests, ImageDigests};
use super::{Asset, Release, checksums};
use crate::contents::INIT;
use crate::platform::Platform;
use crate::spec::ENTRYPOINT;

/// What a Dockerfile of one's own usually stands on.
const BASE: &str = "docker.io/library/debian:trixie-slim";

/// The image that holds the init alone.
const ALONE: &str = "scratch";

/// Those whose image or whose binaries are among the `downloads` of this build.
pub fn all(release: &Release, digests: &Digests, downloads: &[Asset]) -> Result<Vec<Asset>> {
    let image = |name: &str| digests.images.iter().find(|it| it.name == name);
    let default = release.plan.definitions.iter().find(|it| it.default);
    let mut snippets = Vec::new();
    if let Some(image) = default.and_then(|it| image(&it.name)) {
        snippets.push(Asset::plain("Dockerfile.from", from(digests, image)));
    }
    if let Some(image) = image(ALONE) {
        snippets.push(Asset::plain("Dockerfile.copy", copy(digests, image)?));
    }
    let platforms = release.plan.platforms();
    let sums: Vec<_> = platforms
        .into_iter()
        .filter_map(|platform| {
            let [_, name] = super::names(platform);
            let asset = downloads.iter().find(|it| it.name == name)?;
            Some((platform, name, checksums::sum(asset)))
        })
        .collect();
    snippets.push(Asset::plain("Dockerfile.add", add(digests, &sums)?));
    Ok(snippets)
}

fn head(digests: &Digests, way: &str) -> String {
    format!("# Written by `cargo xtask dist`: pid1 {}, {way}.\n", digests.version)
}

/// `repository:tag@digest`: the tag is for people, the digest is what counts.
fn pinned(digests: &Digests, image: &ImageDigests) -> String {
    format!("{}:{}@{}", digests.repository, image.tags[0], image.digest)
}

fn from(digests: &Digests, image: &ImageDigests) -> String {
    let head = head(digests, "under a static program, which lies beside this file as `server`");
    let image = pinned(digests, image);
    format!("{head}FROM {image}\nCOPY --chmod=0755 server /server\nCMD [\"/server\"]\n")
}

fn copy(digests: &Digests, image: &ImageDigests) -> Result<String> {
    let head = head(digests, "from its image, on a base of your own");
    let image = pinned(digests, image);
    let copy = format!("COPY --from={image} /{INIT} /{INIT}\n");
    Ok(format!("{head}ARG BASE={BASE}\nFROM ${{BASE}}\n{copy}{}", entrypoint()?))
}

/// A stage for each platform, of which only that of the platform that is built for is made.
fn add(digests: &Digests, sums: &[(&Platform, String, String)]) -> Result<String> {
    let mut text = head(digests, "from the files of the release, on a base of your own");
    let releases = concat!(env!("CARGO_PKG_REPOSITORY"), "/releases/download");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "ARG BASE={BASE}\nARG RELEASE={releases}/v{}\n", digests.version);
    for (platform, name, sum) in sums {
        let variant = platform.variant.unwrap_or_default();
        let _ = writeln!(text, "FROM scratch AS pid1-{}{variant}", platform.architecture);
        let checked = format!("ADD --chmod=0755 --checksum=sha256:{sum}");
        let _ = writeln!(text, "ARG RELEASE\n{checked} ${{RELEASE}}/{name} /{INIT}\n");
    }
    let _ = writeln!(text, "FROM pid1-${{TARGETARCH}}${{TARGETVARIANT}} AS pid1\n");
    let copy = format!("COPY --from=pid1 /{INIT} /{INIT}\n");
    let _ = write!(text, "FROM ${{BASE}}\n{copy}{}", entrypoint()?);
    Ok(text)
}

fn entrypoint() -> Result<String> {
    Ok(format!("ENTRYPOINT {}\nCMD [\"sh\"]\n", serde_json::to_string(&ENTRYPOINT)?))
}
