//! Where everything is: one function a path.

use std::path::{Path, PathBuf};

use crate::platform::Platform;

/// The top of the repository.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask is a folder of the repository").to_path_buf()
}

/// What GitHub runs.
pub fn workflows() -> PathBuf {
    root().join(".github/workflows")
}

/// The picture of memory and size beside the other inits.
pub fn picture() -> PathBuf {
    root().join("pid1/footprint.svg")
}

/// The definitions, one folder an image.
pub fn images() -> PathBuf {
    root().join("images")
}

/// The folder of the image `name`: its `image.toml` and its Dockerfile.
pub fn image(name: &str) -> PathBuf {
    images().join(name)
}

/// The digests of the bases.
pub fn lock() -> PathBuf {
    images().join("bases.lock")
}

/// What was pulled: the blob of this digest.
pub fn base_blob(digest: &str) -> PathBuf {
    target().join("bases").join(digest.replace(':', "/"))
}

/// Cargo's target folder. The variable is read so that a copy of the repository can share one.
pub fn target() -> PathBuf {
    let shared = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let shared = shared.map(|folder| std::path::absolute(&folder).unwrap_or(folder));
    shared.unwrap_or_else(|| root().join("target"))
}

/// All that `cargo xtask dist` makes.
pub fn dist() -> PathBuf {
    target().join("dist")
}

/// What the build needs and this machine lacked: zig, cargo-zigbuild, qemu. The variable is set
/// by `reproduce`: with the linkers in another place, std would have to be compiled again.
pub fn tools() -> PathBuf {
    std::env::var_os("PID1_TOOLS").map_or_else(|| target().join("tools"), PathBuf::from)
}

/// Cargo's target folder of the cross build: its own, so as not to wait for the cargo that runs us.
pub fn cross() -> PathBuf {
    target().join("cross")
}

/// Where what was published is built again.
pub fn reproduce() -> PathBuf {
    target().join("reproduce")
}

/// The binary of `package` (`pid1` or `docker-testing`) for `platform`.
pub fn binary(platform: &Platform, package: &str) -> PathBuf {
    dist().join("bin").join(platform.slug()).join(package)
}

/// The OCI layout of the image `name`.
pub fn layout(name: &str) -> PathBuf {
    dist().join("oci").join(name)
}

/// The build context of the Dockerfile of the image `name`.
pub fn context(name: &str) -> PathBuf {
    dist().join("context").join(name)
}

/// The files of a release.
pub fn release() -> PathBuf {
    dist().join("release")
}

/// What a release attests, as checksums.
pub fn subjects() -> PathBuf {
    dist().join("signed/subjects.sha256")
}

/// The signature of a release's checksums.
pub fn signature() -> PathBuf {
    dist().join("signed").join(crate::release::SIGNATURES[0])
}

/// The attestation of a release's files and images.
pub fn attestation() -> PathBuf {
    dist().join("signed").join(crate::release::SIGNATURES[1])
}

/// What passed its smoke tests before.
pub fn smoke() -> PathBuf {
    dist().join("smoke")
}
