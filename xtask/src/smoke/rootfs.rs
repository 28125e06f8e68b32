//! Unpacks the layers of a layout into a folder.
//!
//! Modes are kept; owners only when we are root, as nobody else can give files away. Nobody else
//! can enter a directory that its owner may not enter, either, so to those its owner may.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;
use oci_spec::image::{Descriptor, ImageConfiguration};
use tar::{Archive, Entry};
use tempfile::TempDir;

use super::binfmt;
use super::container::Accounts;
use super::machine::Machine;
use super::users;
use crate::oci::layer;
use crate::oci::layout::Layout;
use crate::oci::lower::{LINKS, OPAQUE, WHITEOUT};
use crate::paths;
use crate::platform::Platform;

/// How the folders of unpacked images are called; the number of their process comes next.
const PREFIX: &str = "smoke-";

/// One image for one platform, unpacked, to be run any number of times. Removed when dropped.
pub struct Rootfs {
    folder: TempDir,
    /// The image's name.
    pub name: String,
    pub platform: &'static Platform,
    pub config: ImageConfiguration,
    /// What tells the kernel to run its programs through qemu, if that is needed.
    pub registration: Option<String>,
}

impl Rootfs {
    /// Unpacks the image `name` for `platform`, checking every byte against its digest.
    pub fn unpack(
        name: &str,
        layout: &Layout,
        platform: &'static Platform,
        machine: &Machine,
    ) -> Result<Rootfs> {
        let (_, manifest) = layout.manifest(platform)?;
        let config = layout.config(&manifest)?;
        let folder = folder().context("cannot make a folder for the image")?;
        for folder in [folder.path().join("root"), folder.path().join("stage")] {
            fs::create_dir(&folder).context("cannot make a folder for the image")?;
            // Whatever our umask is.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        }
        let registration = match machine {
            Machine::Qemu(qemu) => {
                symlink(
                    std::path::absolute(qemu)?,
                    folder.path().join(binfmt::interpreter(platform)),
                )
                .context("cannot make a link to qemu")?;
                Some(binfmt::registration(platform))
            }
            Machine::Native | Machine::Registered => None,
        };
        let rootfs = Rootfs { folder, name: name.to_string(), platform, config, registration };
        for layer in manifest.layers() {
            apply(layout, layer, &rootfs.path())
                .with_context(|| format!("cannot unpack `{name}` for {platform}"))?;
        }
        Ok(rootfs)
    }

    /// The folder with `root`, the image, and `stage`, which is empty.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Whether the image has a file of this name. Where a link is in the way it has something,
    /// wherever that leads.
    pub fn has(&self, path: &str) -> bool {
        let mut place = self.path();
        for component in Path::new(path.trim_start_matches('/')) {
            place.push(component);
            match fs::symlink_metadata(&place) {
                Ok(metadata) if metadata.is_symlink() => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether a program in the image would find a file of this name.
    pub fn finds(&self, path: &str) -> bool {
        inside(&self.path(), path).is_some()
    }

    /// The users and groups it knows.
    pub fn accounts(&self) -> Accounts {
        // An image without them has only numbers.
        let read = |path| self.read_or_empty(path);
        Accounts { passwd: read("etc/passwd"), group: read("etc/group") }
    }

    /// What is in the file at `path`, which is relative; nothing if there is none. Links are
    /// followed as far as they lead in the image.
    pub fn read_or_empty(&self, path: &str) -> String {
        let place = inside(&self.path(), path);
        let bytes = place.and_then(|place| fs::read(place).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Where `path` is, if it is a file where `root` is the root, which no link leads out of.
fn inside(root: &Path, path: &str) -> Option<PathBuf> {
    let mut place = root.to_path_buf();
    let mut todo: Vec<_> = path.split('/').rev().map(ToString::to_string).collect();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match part.as_str() {
            "" | "." => {}
            ".." if place == root => {}
            ".." => drop(place.pop()),
            _ => place.push(&part),
        }
        if let Ok(target) = fs::read_link(&place) {
            links += 1;
            let target = target.to_string_lossy();
            if target.starts_with('/') {
                place = root.to_path_buf();
            } else {
                place.pop();
            }
            todo.extend(target.split('/').rev().map(ToString::to_string));
        }
        if links > LINKS {
            return None;
        }
    }
    fs::symlink_metadata(&place).is_ok_and(|it| it.is_file()).then_some(place)
}

/// A folder that is removed when it is dropped, and if we are killed before, by the next who
/// comes along.
fn folder() -> Result<TempDir> {
    let target = paths::target();
    fs::create_dir_all(&target)?;
    for entry in fs::read_dir(&target)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Two may come along at once.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{PREFIX}{}-", std::process::id());
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(target)?)
}

/// Puts one layer on top of what is in `root`.
fn apply(layout: &Layout, descriptor: &Descriptor, root: &Path) -> Result<()> {
    let bytes = layout.read_blob(descriptor)?;
    unpack(root, || Ok(Archive::new(layer::unpacked(descriptor.media_type(), &bytes)?)))
}

fn unpack<'a>(root: &Path, open: impl Fn() -> Result<Archive<Box<dyn Read + 'a>>>) -> Result<()> {
    // First everything that goes, which is always the lower layers', wherever it stands.
    for entry in open()?.entries()? {
        let path = entry?.path()?.into_owned();
        white_out(root, &path).with_context(|| format!("cannot remove `{}`", path.display()))?;
    }
    let mut archive = open()?;
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(!users::only_us());
    add(&mut archive, root)
}

fn white_out(root: &Path, path: &Path) -> Result<()> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(()) };
    let Some(parent) = parent(root, path)? else { return Ok(()) };
    if name == OPAQUE {
        for entry in fs::read_dir(&parent)? {
            remove(&entry?.path())?;
        }
        return Ok(());
    }
    remove(&parent.join(hidden))
}

/// The directory that `path` is in, if there is one. No part of it may be a link: it could lead
/// out of `root`, and to remove is the last thing to do there.
fn parent(root: &Path, path: &Path) -> Result<Option<PathBuf>> {
    let mut place = root.to_path_buf();
    for component in path.parent().into_iter().flat_map(Path::components) {
        match component {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) => place.push(name),
            _ => bail!("the path leads upwards"),
        }
        match fs::symlink_metadata(&place) {
            Ok(metadata) => ensure!(metadata.is_dir(), "the path leads through a link or a file"),
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(place))
}

fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {}
    }
    Ok(())
}

fn add(archive: &mut Archive<impl Read>, root: &Path) -> Result<()> {
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(WHITEOUT) {
            add_one(&mut entry, root, &path)
                .with_context(|| format!("cannot write `{}`", path.display()))?;
        }
    }
    Ok(())
}

fn add_one(entry: &mut Entry<impl Read>, root: &Path, path: &Path) -> Result<()> {
    let is_dir = entry.header().entry_type().is_dir();
    let place = parent(root, path).ok().flatten().zip(path.file_name());
    let place = place.map(|(parent, name)| parent.join(name));
    if let Some(place) = &place
        && fs::symlink_metadata(place).is_ok_and(|it| it.is_dir() != is_dir)
    {
        remove(place)?;
    }
    // This also makes missing parents, and refuses what would end up outside of `root`.
    ensure!(entry.unpack_in(root)?, "it would be outside of the image");
    if let Some(place) = place.filter(|_| is_dir && !geteuid().is_root()) {
        let mode = entry.header().mode()? | 0o700;
        fs::set_permissions(place, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer of files, `name/` being a directory and `name>target` a link.
    fn layer(names: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(0);
            header.set_mtime(0);
            header.set_uid(geteuid().as_raw().into());
            header.set_gid(nix::unistd::getegid().as_raw().into());
            let (path, target) = name.split_once('>').unwrap_or((name, ""));
            header.set_entry_type(match (path.ends_with('/'), target) {
                (true, _) => tar::EntryType::Directory,
                (false, "") => tar::EntryType::Regular,
                _ => tar::EntryType::Symlink,
            });
            if !target.is_empty() {
                header.set_link_name(target).unwrap();
            }
            // Not with `set_path`, which refuses what an attacker would not.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn apply_all(layers: &[&[&str]]) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        for names in layers {
            let bytes = layer(names);
            unpack(&root, || Ok(Archive::new(Box::new(std::io::Cursor::new(bytes.clone())))))?;
        }
        let mut found = Vec::new();
        list(folder.path(), folder.path(), &mut found);
        found.sort();
        Ok(found)
    }

    fn list(top: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(top).unwrap().display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                list(top, &path, found);
            }
        }
    }

    #[track_caller]
    fn gives(layers: &[&[&str]], expected: &[&str]) {
        assert_eq!(apply_all(layers).unwrap(), expected);
    }

    #[track_caller]
    fn refuses(layers: &[&[&str]], expected: &str) {
        let error = format!("{:#}", apply_all(layers).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_whiteout_removes_from_lower_layers_only() {
        gives(&[&["a/", "a/b", "a/c"], &["a/", "a/.wh.b"]], &["root", "root/a", "root/a/c"]);
        gives(&[&["a/", "a/b"], &["a/", "a/d", "a/.wh..wh..opq"]], &["root", "root/a", "root/a/d"]);
    }

    #[test]
    fn a_directory_replaces_a_file_and_a_file_a_directory() {
        gives(&[&["a"], &["a/", "a/b"]], &["root", "root/a", "root/a/b"]);
        gives(&[&["a/", "a/b"], &["a"]], &["root", "root/a"]);
    }

    #[test]
    fn nothing_is_written_or_removed_outside() {
        refuses(&[&["../a"]], "outside");
        refuses(&[&["a>..", "a/b"]], "cannot write `a/b`");
        refuses(&[&["a>.."], &["a/.wh.root"]], "cannot remove `a/.wh.root`");
        refuses(&[&["../.wh.root"]], "upwards");
        gives(&[&["/a"]], &["root", "root/a"]);
    }

    #[test]
    fn a_file_behind_links_is_found_and_none_outside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin/dash"), "").unwrap();
        fs::write(folder.path().join("outside"), "").unwrap();
        for (link, target) in
            [("bin", "usr/bin"), ("usr/bin/sh", "dash"), ("usr/bin/echo", "/usr/bin/busybox")]
        {
            symlink(target, root.join(link)).unwrap();
        }
        symlink("../outside", root.join("up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        assert!(inside(&root, "/bin/sh").is_some());
        for path in ["/bin/echo", "/bin", "/up", "/loop", "/../outside", "/bin/no"] {
            assert!(inside(&root, path).is_none(), "{path}");
        }
    }
}
