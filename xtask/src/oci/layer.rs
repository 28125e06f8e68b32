//! Layers: a tree of files as a compressed tar, the same bytes on every machine.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};
use jiff::Timestamp;
use oci_spec::image::{Descriptor, MediaType};
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::errors::ReadFrameHeaderError::SkipFrame;
use tar::{EntryType, Header};

use super::lower::{Folder, Lower};
use crate::oci;

/// "Unknown" in the header of RFC 1952: the bytes are not to say where they were made.
const GZIP_NO_SYSTEM: u8 = 255;

/// The files of a layer, by their path without the leading slash.
#[derive(Debug, Default)]
pub struct Tree(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    mode: u32,
    user: u64,
    group: u64,
    /// In seconds since 1970; the image's own time, if none is given.
    time: Option<u64>,
    kind: Kind,
}

impl Entry {
    fn new(mode: u32, kind: Kind) -> Entry {
        Entry { mode, user: 0, group: 0, time: None, kind }
    }
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
    pub fn own(&mut self, path: &str, id: u64) {
        let entry = self.0.get_mut(path).expect("only what was added is given away");
        (entry.user, entry.group) = (id, id);
    }

    /// The same, as it is to be put on `lower`: behind the links there, and with the folders that
    /// are there already as they are.
    pub fn over(self, lower: &Lower) -> Result<Tree> {
        let mut tree = Tree::default();
        for (path, entry) in self.0 {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let is_folder = matches!(entry.kind, Kind::Folder);
            let place = if is_folder {
                lower.resolve(&path)?
            } else {
                format!("{}/{name}", lower.resolve(folder)?).trim_start_matches('/').to_string()
            };
            ensure!(is_folder || lower.folder(&place).is_none(), "`/{place}` is a folder there");
            tree.insert(&place, entry.mode, entry.kind);
        }
        for (path, entry) in &mut tree.0 {
            if let Some(Folder { mode, user, group, time }) = lower.folder(path) {
                *entry = Entry { mode, user, group, time: Some(time), kind: Kind::Folder };
            }
        }
        Ok(tree)
    }

    fn insert(&mut self, path: &str, mode: u32, kind: Kind) {
        for (end, _) in path.match_indices('/') {
            let folder = || Entry::new(0o755, Kind::Folder);
            self.0.entry(path[..end].to_string()).or_insert_with(folder);
        }
        self.0.insert(path.to_string(), Entry::new(mode, kind));
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

/// `tree` as a compressed tar, everything in it dated `time`.
pub fn archive(tree: &Tree, time: Timestamp) -> Result<Vec<u8>> {
    gzip(&tar(tree, time)?).context("cannot compress an archive")
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
    header.set_uid(entry.user);
    header.set_gid(entry.group);
    let time = entry.time.map_or_else(|| time.as_second().try_into(), Ok);
    header.set_mtime(time.context("it is dated before 1970")?);
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

/// What is in the compressed tar `blob` of this type.
pub fn unpacked<'a>(media_type: &MediaType, blob: &'a [u8]) -> Result<Box<dyn Read + 'a>> {
    Ok(match media_type {
        MediaType::ImageLayer => Box::new(blob),
        MediaType::ImageLayerGzip => Box::new(MultiGzDecoder::new(blob)),
        MediaType::ImageLayerZstd => Box::new(Cursor::new(frames(blob)?)),
        other => bail!("cannot read a layer of type `{other}`"),
    })
}

/// What is in the frames of zstd, one after the other: podman cuts a layer into many, and leaves
/// some between them for itself.
fn frames(mut blob: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while !blob.is_empty() {
        match StreamingDecoder::new(&mut blob) {
            Ok(mut frame) => frame.read_to_end(&mut bytes).map(drop),
            Err(FrameDecoderError::ReadFrameHeaderError(SkipFrame { length, .. })) => {
                let rest = usize::try_from(length).ok().and_then(|length| blob.get(length..));
                blob = rest.context("cannot unpack zstd: it ends too early")?;
                Ok(())
            }
            Err(err) => bail!("cannot unpack zstd: {err}"),
        }
        .context("cannot unpack zstd")?;
    }
    Ok(bytes)
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let header = GzBuilder::new().mtime(0).operating_system(GZIP_NO_SYSTEM);
    let mut encoder = header.write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths, modes, owners and times of the tar.
    fn entries(tar: &[u8]) -> Vec<(String, u32, u64, u64)> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let (header, path) = (entry.header(), entry.path().unwrap().display().to_string());
            let (mode, owner) = (header.mode().unwrap(), header.uid().unwrap());
            (path, mode, owner, header.mtime().unwrap())
        });
        entries.collect()
    }

    #[test]
    fn a_file_goes_where_the_links_below_lead_and_folders_stay_as_they_are() {
        let mut below = tar::Builder::new(Vec::new());
        let mut header = Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o711);
        header.set_uid(7);
        header.set_gid(7);
        header.set_mtime(9);
        header.set_entry_type(EntryType::Directory);
        below.append_data(&mut header, "usr/", std::io::empty()).unwrap();
        header.set_entry_type(EntryType::Symlink);
        below.append_link(&mut header, "sbin", "usr/sbin").unwrap();
        let mut lower = Lower::default();
        lower.add(below.into_inner().unwrap().as_slice()).unwrap();
        let mut tree = Tree::default();
        tree.file("sbin/pid1", 0o755, b"".as_slice());
        let tar = tar(&tree.over(&lower).unwrap(), Timestamp::from_second(3).unwrap()).unwrap();
        let expected =
            [("usr/", 0o711, 7, 9), ("usr/sbin/", 0o755, 0, 3), ("usr/sbin/pid1", 0o755, 0, 3)];
        let expected =
            expected.map(|(path, mode, owner, time)| (path.to_string(), mode, owner, time));
        assert_eq!(entries(&tar), expected);
    }

    #[test]
    fn frames_of_zstd_are_read_one_after_the_other() {
        // `zstd` of `a\n`, a frame of 3 bytes to be skipped, and `zstd` of `b\n`.
        let head = hex::decode("28b52ffd0058110000").unwrap();
        let frame = |byte| [head.as_slice(), &[byte, b'\n']].concat();
        let skipped = hex::decode("502a4d1803000000ffffff").unwrap();
        let blob = [frame(b'a'), skipped, frame(b'b')].concat();
        assert_eq!(frames(&blob).unwrap(), b"a\nb\n");
        assert!(frames(&blob[..blob.len() - 1]).is_err());
    }
}
