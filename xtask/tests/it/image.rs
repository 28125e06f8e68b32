//! `cargo xtask image`, from binaries that are not real, into a target folder of each test's own.

pub mod place;

mod layout;

mod contents;

mod failure;

pub mod dockerfile;

mod clock;

mod docker;
mod podman;
mod skopeo;
mod umoci;

/// As it stands in tags.
const VERSION: &str = env!("CARGO_PKG_VERSION");
