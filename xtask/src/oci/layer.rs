//! Layers: a tree of files as a compressed tar, the same bytes on every machine.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use jiff::Timestamp;
use oci_spec::image::{Descriptor, MediaType};
use tar::{EntryType, Header};

use crate::oci;

/// "Unknown" in the header of RFC 1952: the bytes are not to say where they were made.
const GZIP_NO_SYSTEM: u8 = 255;

/// The files of a layer, by their path without the leading slash.
#[derive(Debug, Default)]
pub struct Tree(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    mode: u32,
    owner: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Folder,
    File(Cow<'static, [u8]>),
    Link(String),
}

impl Tree {
    /// Adds a file, and the folders above it.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Cow<'static, [u8]>>) {
        self.insert(path, mode, Kind::File(bytes.into()));
    }

    /// Adds a folder, and those above it.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.insert(path, mode, Kind::Folder);
    }

    /// Adds a symbolic link to `to`, and the folders above it.
    pub fn link(&mut self, path: &str, to: impl Into<String>) {
        self.insert(path, 0o777, Kind::Link(to.into()));
    }

    /// Gives what is at `path` to the user and the group `id`; everything else is root's.
    pub fn own(&mut self, path: &str, id: u32) {
        self.0.get_mut(path).expect("only what was added is given away").owner = id;
    }

    fn insert(&mut self, path: &str, mode: u32, kind: Kind) {
        for (end, _) in path.match_indices('/') {
            let folder = Entry { mode: 0o755, owner: 0, kind: Kind::Folder };
            self.0.entry(path[..end].to_string()).or_insert(folder);
        }
        self.0.insert(path.to_string(), Entry { mode, owner: 0, kind });
    }
}

/// A layer, ready to be stored.
#[derive(Debug)]
pub struct Layer {
    /// What a manifest says of it.
    pub descriptor: Descriptor,
    /// The digest of the tar before compression.
    pub diff_id: String,
    /// The compressed tar.
    pub blob: Vec<u8>,
}

impl Layer {
    /// Packs `tree`, everything in it dated `time`.
    pub fn pack(tree: &Tree, time: Timestamp) -> Result<Layer> {
        let tar = tar(tree, time)?;
        let blob = gzip(&tar).context("cannot compress a layer")?;
        let descriptor = oci::descriptor(MediaType::ImageLayerGzip, &blob)?;
        Ok(Layer { descriptor, diff_id: oci::layout::sha256(&tar), blob })
    }
}

/// Sorted by path, a folder before what is in it. The old format is enough, and has no room for
/// what differs between machines: user names are left empty.
fn tar(tree: &Tree, time: Timestamp) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, entry) in &tree.0 {
        append(&mut builder, path, entry, time)
            .with_context(|| format!("cannot put `/{path}` into a layer"))?;
    }
    builder.into_inner().context("cannot finish a layer")
}

fn append(
    builder: &mut tar::Builder<Vec<u8>>,
    path: &str,
    entry: &Entry,
    time: Timestamp,
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.into());
    header.set_gid(entry.owner.into());
    header.set_mtime(time.as_second().try_into().context("it is dated before 1970")?);
    header.set_size(0);
    match &entry.kind {
        Kind::Folder => {
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Kind::File(bytes) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, &**bytes)?;
        }
        Kind::Link(to) => {
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, path, to)?;
        }
    }
    Ok(())
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let header = GzBuilder::new().mtime(0).operating_system(GZIP_NO_SYSTEM);
    let mut encoder = header.write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}
