//! The files of a release: what somebody who wants no image downloads.

mod checksums;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::Context;
use crate::build::Built;
use crate::platform::Platform;
use crate::{files, paths};

/// A file of a release, before it is written.
struct Asset {
    name: String,
    bytes: Vec<u8>,
    mode: u32,
}

/// Writes [`paths::release`] anew from the binaries that were built, whole or not at all, and
/// gives the files' paths.
pub fn write(context: &Context, built: &[Built]) -> Result<Vec<PathBuf>> {
    let mut assets = Vec::new();
    for Built { platform, path, .. } in built.iter().filter(|it| it.package == "pid1") {
        let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        assets.extend(names(platform).map(|name| Asset {
            name,
            bytes: bytes.clone(),
            mode: files::EXECUTABLE,
        }));
    }
    assets.push(checksums::of(&assets));
    context.interrupt.check()?;
    let folder = paths::release();
    replace(&folder, &assets)?;
    let paths: Vec<_> = assets.iter().map(|asset| folder.join(&asset.name)).collect();
    context.ui.say(format!("release: {} files in {}", paths.len(), folder.display()));
    Ok(paths)
}

/// The names under which the init of `platform` is released. People's scripts have them: they
/// never change.
fn names(platform: &Platform) -> [String; 2] {
    [format!("pid1-{}", platform.target), format!("pid1-{}", platform.slug())]
}

/// Puts a folder of just `assets` in the place of `folder`.
fn replace(folder: &Path, assets: &[Asset]) -> Result<()> {
    let parent = folder.parent().context("the release folder is in a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
    let half = tempfile::tempdir_in(parent)
        .with_context(|| format!("cannot create a folder in `{}`", parent.display()))?;
    let new = half.path().join("new");
    for asset in assets {
        files::write(&new.join(&asset.name), &asset.bytes, asset.mode)?;
    }
    if folder.exists() {
        fs::rename(folder, half.path().join("old"))
            .with_context(|| format!("cannot replace `{}`", folder.display()))?;
    }
    fs::rename(&new, folder).with_context(|| format!("cannot write `{}`", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::PLATFORMS;

    #[test]
    fn the_names_of_a_release_never_change() {
        let names: Vec<_> = PLATFORMS.iter().flat_map(names).collect();
        let expected = [
            "pid1-x86_64-unknown-linux-musl",
            "pid1-linux-amd64",
            "pid1-aarch64-unknown-linux-musl",
            "pid1-linux-arm64",
            "pid1-armv7-unknown-linux-musleabihf",
            "pid1-linux-arm-v7",
            "pid1-arm-unknown-linux-musleabihf",
            "pid1-linux-arm-v6",
            "pid1-i686-unknown-linux-musl",
            "pid1-linux-386",
            "pid1-powerpc64le-unknown-linux-musl",
            "pid1-linux-ppc64le",
            "pid1-s390x-unknown-linux-musl",
            "pid1-linux-s390x",
            "pid1-riscv64gc-unknown-linux-musl",
            "pid1-linux-riscv64",
            "pid1-loongarch64-unknown-linux-musl",
            "pid1-linux-loong64",
        ];
        assert_eq!(names, expected);
    }

    fn asset(name: &str, text: &str) -> Asset {
        Asset { name: name.to_string(), bytes: text.as_bytes().to_vec(), mode: files::PLAIN }
    }

    #[test]
    fn a_new_release_leaves_nothing_of_the_old_one() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("release");
        replace(&folder, &[asset("old", "1")]).unwrap();
        replace(&folder, &[asset("new", "2")]).unwrap();
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(entries.collect::<Vec<_>>(), ["new"]);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_release_that_fails_leaves_the_old_one() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("release");
        replace(&folder, &[asset("old", "1")]).unwrap();
        replace(&folder, &[asset("new", "2"), asset("\0", "no such name")]).unwrap_err();
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(entries.collect::<Vec<_>>(), ["old"]);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
