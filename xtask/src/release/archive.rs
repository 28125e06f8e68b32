//! The archives: the init with what belongs to it on a machine, and the manual of the xtask.

use anyhow::Result;
use jiff::Timestamp;

use super::{Asset, manual};
use crate::files;
use crate::oci::layer::{self, Tree};
use crate::platform::Platform;

const LICENSE: &str = include_str!("../../../LICENSE");
const README: &str = include_str!("../../../pid1/README.md");

/// `pid1-linux-amd64.tar.gz`: everything in a folder of that name, the init as `pid1`.
pub fn of_init(platform: &Platform, init: &[u8], time: Timestamp) -> Result<Asset> {
    let folder = format!("pid1-{}", platform.slug());
    let mut tree = Tree::default();
    tree.file(&format!("{folder}/pid1"), files::EXECUTABLE, init.to_vec());
    tree.file(&format!("{folder}/LICENSE"), files::PLAIN, LICENSE.as_bytes());
    tree.file(&format!("{folder}/README.md"), files::PLAIN, README.as_bytes());
    for (path, text) in manual::of(&manual::init())? {
        tree.file(&format!("{folder}/{path}"), files::PLAIN, text);
    }
    Ok(Asset::plain(format!("{folder}.tar.gz"), layer::archive(&tree, time)?))
}

/// `xtask-manual.tar.gz`: man pages and completions, for who calls the xtask by that name.
pub fn of_xtask(time: Timestamp) -> Result<Asset> {
    let mut tree = Tree::default();
    for (path, text) in manual::of(&manual::xtask())? {
        tree.file(&format!("xtask-manual/{path}"), files::PLAIN, text);
    }
    Ok(Asset::plain("xtask-manual.tar.gz", layer::archive(&tree, time)?))
}
