//! crane, which reads every byte of what was pushed and takes nobody's word for a digest.

use std::process::Command;

use super::server::{Door, Server};
use crate::built::done;
use crate::push::fixture::tool;

/// Pushes the images that `cargo xtask test` has built, for all nine platforms, and has crane
/// validate and pull them.
#[track_caller]
pub fn validates(server: &Server) {
    let repository = format!("{}/pid1", server.address);
    let pushed = done(Command::new(env!("CARGO_BIN_EXE_xtask")).args(["push", &repository]));
    assert_eq!(pushed.code, Some(0), "{}", pushed.stderr);
    let references: Vec<_> = pushed.stdout.lines().collect();
    assert_eq!(references.len(), 3);
    for reference in references {
        let place = tempfile::tempdir().unwrap();
        let arguments = ["validate", "--insecure", "--remote", reference];
        let said = tool("crane", &arguments, place.path());
        assert_eq!(said, format!("PASS: {reference}\n"));
        tool("crane", &["pull", "--insecure", "--format=oci", reference, "layout"], place.path());
        let (_, digest) = reference.split_once("@sha256:").unwrap();
        assert!(place.path().join("layout/blobs/sha256").join(digest).is_file());
    }
}

#[test]
fn crane_validates_and_pulls_what_was_pushed() {
    validates(&Server::start(&Door::Open));
}
