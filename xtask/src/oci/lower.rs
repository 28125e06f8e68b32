//! What the layers below hold, as far as a layer that is put on them must know.
//!
//! Where a distribution has `/sbin` as a link, a layer with a folder `/sbin` would put that in the
//! link's place, and everything behind it out of sight. And docker gives a folder that a layer does
//! not mention a mode of its own: so a layer names the folders it writes to, as they are below.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use tar::{Archive, EntryType};

/// What deletes a file of a lower layer
/// (<https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts>).
pub const WHITEOUT: &str = ".wh.";

/// What empties a directory of its lower layers' files.
pub const OPAQUE: &str = ".wh..wh..opq";

/// How many links are followed, one after the other: as many as Linux follows.
pub const LINKS: usize = 40;

/// The files of some layers, one on the other, by their path without the leading slash.
#[derive(Debug, Default)]
pub struct Lower(BTreeMap<String, Node>);

#[derive(Debug, Clone)]
enum Node {
    Folder(Folder),
    Link(String),
    Other,
}

/// A folder, as it is below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folder {
    /// Its permissions.
    pub mode: u32,
    /// The user it belongs to.
    pub user: u64,
    /// The group it belongs to.
    pub group: u64,
    /// When it was changed, in seconds since 1970.
    pub time: u64,
}

impl Lower {
    /// Puts a layer, which is not compressed, on top.
    pub fn add(&mut self, layer: impl Read) -> Result<()> {
        let mut nodes = Vec::new();
        let mut archive = Archive::new(layer);
        for entry in archive.entries().context("cannot read a layer")? {
            let entry = entry.context("cannot read a layer")?;
            let path = entry.path().context("cannot read a layer")?;
            let path = plain(&path.to_string_lossy());
            let node = node(&entry).with_context(|| format!("cannot read `/{path}`"))?;
            nodes.push((path, node));
        }
        // What goes is always the lower layers', wherever in the layer that is said.
        for (path, _) in &nodes {
            self.white_out(path);
        }
        for (path, node) in nodes {
            let name = path.rsplit('/').next().unwrap_or_default();
            if !path.is_empty() && !name.starts_with(WHITEOUT) {
                self.put(path, node);
            }
        }
        Ok(())
    }

    fn white_out(&mut self, path: &str) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == OPAQUE {
            self.empty(folder);
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            self.remove(plain(&format!("{folder}/{hidden}")).as_str());
        }
    }

    fn put(&mut self, path: String, node: Node) {
        let is_folder = |node: Option<&Node>| matches!(node, Some(Node::Folder(_)));
        if !(is_folder(Some(&node)) && is_folder(self.0.get(&path))) {
            self.remove(&path);
        }
        self.0.insert(path, node);
    }

    fn remove(&mut self, path: &str) {
        self.0.remove(path);
        self.empty(path);
    }

    fn empty(&mut self, folder: &str) {
        let inside = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        self.0.retain(|path, _| !path.starts_with(&inside));
    }

    /// Where a folder really is, links followed. It need not be there.
    pub fn resolve(&self, folder: &str) -> Result<String> {
        let mut place: Vec<String> = Vec::new();
        let mut todo: VecDeque<String> = folder.split('/').map(ToString::to_string).collect();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    // Above the root is the root.
                    place.pop();
                    continue;
                }
                _ => place.push(part),
            }
            match self.0.get(&place.join("/")) {
                Some(Node::Link(to)) => {
                    links += 1;
                    ensure!(links <= LINKS, "the links at `/{folder}` lead nowhere");
                    place.pop();
                    if to.starts_with('/') {
                        place.clear();
                    }
                    let parts: Vec<_> = to.split('/').map(ToString::to_string).collect();
                    parts.into_iter().rev().for_each(|part| todo.push_front(part));
                }
                Some(Node::Other) => bail!("`/{}` is no folder there", place.join("/")),
                Some(Node::Folder(_)) | None => {}
            }
        }
        Ok(place.join("/"))
    }

    /// The folder at `path`, where no link is on the way.
    pub fn folder(&self, path: &str) -> Option<Folder> {
        match self.0.get(path) {
            Some(Node::Folder(folder)) => Some(*folder),
            _ => None,
        }
    }
}

/// A path as keys are: `a/b`, whether it was written `./a/b/` or `/a/b`.
fn plain(path: &str) -> String {
    let parts = path.split('/').filter(|it| !matches!(*it, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

fn node(entry: &tar::Entry<'_, impl Read>) -> Result<Node> {
    let header = entry.header();
    Ok(match header.entry_type() {
        EntryType::Directory => Node::Folder(Folder {
            mode: header.mode()? & 0o7777,
            user: header.uid()?,
            group: header.gid()?,
            time: header.mtime()?,
        }),
        EntryType::Symlink => {
            let target = entry.link_name()?.context("it is a link to nowhere")?;
            Node::Link(target.to_string_lossy().into_owned())
        }
        _ => Node::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer of files, `name/` being a folder and `name>target` a link.
    fn layer(names: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o751);
            header.set_uid(3);
            header.set_gid(4);
            header.set_mtime(5);
            header.set_size(0);
            let (path, target) = name.split_once('>').unwrap_or((name, ""));
            header.set_entry_type(match (path.ends_with('/'), target) {
                (true, _) => EntryType::Directory,
                (false, "") => EntryType::Regular,
                _ => EntryType::Symlink,
            });
            match target {
                "" => builder.append_data(&mut header, path, std::io::empty()).unwrap(),
                target => builder.append_link(&mut header, path, target).unwrap(),
            }
        }
        builder.into_inner().unwrap()
    }

    fn lower(layers: &[&[&str]]) -> Lower {
        let mut lower = Lower::default();
        for names in layers {
            lower.add(layer(names).as_slice()).unwrap();
        }
        lower
    }

    #[track_caller]
    fn leads(layers: &[&[&str]], path: &str, to: &str) {
        assert_eq!(lower(layers).resolve(path).unwrap(), to);
    }

    #[test]
    fn links_are_followed_inside_of_the_image() {
        leads(&[&["usr/", "usr/sbin/", "sbin>usr/sbin"]], "sbin", "usr/sbin");
        leads(&[&["./usr/", "./sbin>/usr/sbin"]], "sbin", "usr/sbin");
        leads(&[&["a/", "a/sbin>../../b/./c", "sbin>a/sbin"]], "sbin", "b/c");
        leads(&[&["bin>usr/bin", "usr/", "usr/sbin>bin", "sbin>usr/sbin"]], "sbin", "usr/bin");
        leads(&[&["sbin/"]], "sbin", "sbin");
        leads(&[], "sbin", "sbin");
    }

    #[test]
    fn the_upper_layer_wins() {
        leads(&[&["sbin>usr/sbin"], &["sbin/"]], "sbin", "sbin");
        leads(&[&["sbin/", "sbin/a"], &["sbin>b"]], "sbin", "b");
        leads(&[&["sbin>b"], &[".wh.sbin"]], "sbin", "sbin");
        leads(&[&["a/", "a/sbin>/b"], &["a/", "a/.wh..wh..opq"]], "a/sbin", "a/sbin");
        leads(&[&["a/", "a/sbin>/b"], &["a/sbin>/c", "a/.wh..wh..opq"]], "a/sbin", "c");
        leads(&[&["a/", "a/sbin>/b"], &["a>c"]], "a/sbin", "c/sbin");
    }

    #[test]
    fn a_folder_is_known_as_it_is() {
        let folder = Folder { mode: 0o751, user: 3, group: 4, time: 5 };
        assert_eq!(lower(&[&["./sbin/"]]).folder("sbin"), Some(folder));
        assert_eq!(lower(&[&["sbin>a"]]).folder("sbin"), None);
    }

    #[test]
    fn a_way_that_ends_nowhere_is_named() {
        let error = |names: &[&str]| lower(&[names]).resolve("sbin").unwrap_err().to_string();
        assert_eq!(error(&["sbin>sbin"]), "the links at `/sbin` lead nowhere");
        assert_eq!(error(&["sbin>a", "a"]), "`/a` is no folder there");
    }
}
