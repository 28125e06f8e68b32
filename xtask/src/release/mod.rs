//! The files of a release: what somebody who wants no image downloads.

mod archive;
mod manual;

mod checksums;
mod digests;
mod notes;
pub mod sbom;
mod snippets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::Context;
use crate::build::Built;
use crate::build::crates::Facts;
use crate::flags::RegistryOptions;
use crate::oci::layout::Layout;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::registry::{Artifact, Repository};
use crate::revision::Revision;
use crate::{attach, files, paths};

pub use digests::{DIGESTS, Digests};

/// What is published beside the files that are built, and can be built by nobody: the signature of
/// the checksums, and the attestation of all files and images.
pub const SIGNATURES: [&str; 2] = ["SHA256SUMS.sigstore.json", "attestation.sigstore.json"];

/// What a release is made of.
pub struct Release<'a> {
    /// What was decided.
    pub plan: &'a Plan,
    /// What is dated and named after it.
    pub revision: &'a Revision,
    /// Where people find the images.
    pub repository: &'a Repository,
    /// The binaries of the plan's platforms.
    pub binaries: &'a [Built],
    /// What the lock files know.
    pub facts: &'a Facts,
}

/// A file of a release, before it is written.
pub struct Asset {
    name: String,
    bytes: Vec<u8>,
    mode: u32,
}

impl Asset {
    fn program(name: String, bytes: Vec<u8>) -> Asset {
        Asset { name, bytes, mode: files::EXECUTABLE }
    }

    fn plain(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Asset {
        Asset { name: name.into(), bytes: bytes.into(), mode: files::PLAIN }
    }
}

/// Makes [`paths::release`] what the binaries and layouts that were built ask for, whole or not at
/// all, and gives the files' paths.
pub fn write(context: &Context, release: &Release) -> Result<Vec<PathBuf>> {
    let mut assets = downloads(release)?;
    let sums: Vec<_> = assets.iter().map(checksums::of_one).collect();
    for built in release.binaries.iter().filter(|it| it.package == "pid1") {
        assets.push(sbom::of_init(release, built)?);
    }
    for image in &release.plan.images {
        assets.push(sbom::of_image(release, image)?);
    }
    let digests = Digests::read(release)?;
    assets.extend(snippets::all(release, &digests, &assets)?);
    assets.push(Asset::plain(DIGESTS, digests.json()?));
    assets.push(Asset::plain("NOTES.md", notes::notes(&digests)?));
    let all = checksums::of(&assets);
    assets.extend(sums);
    assets.push(all);

    context.interrupt.check()?;
    let folder = paths::release();
    let count = assets.len();
    let state = if holds(&folder, &assets) { "up to date, " } else { "" };
    if state.is_empty() {
        replace(&folder, &assets)?;
    }
    context.ui.say(format!("release: {state}{count} files in {}", folder.display()));
    Ok(assets.iter().map(|asset| folder.join(&asset.name)).collect())
}

/// Writes the images' bills of materials, and nothing else of a release.
pub fn write_bills(release: &Release) -> Result<()> {
    for image in &release.plan.images {
        let Asset { name, bytes, mode } = sbom::of_image(release, image)?;
        files::write(&paths::release().join(name), &bytes, mode)?;
    }
    Ok(())
}

/// Attaches to each of the plan's images, which were pushed to `repository`, its bill of materials.
pub fn attach(
    context: &Context,
    plan: &Plan,
    repository: &Repository,
    options: &RegistryOptions,
) -> Result<()> {
    for image in &plan.images {
        let digest = Layout::open(&paths::layout(&image.name))?.index_descriptor()?;
        let path = paths::release().join(sbom::name_of_image(&image.name));
        let bill = Artifact::read(&path, sbom::MEDIA_TYPE)?;
        attach::attach(context, repository, digest.digest().as_ref(), &[bill], options)?;
    }
    Ok(())
}

/// What is downloaded by itself, so that each has its own checksum beside it.
fn downloads(release: &Release) -> Result<Vec<Asset>> {
    let mut assets = Vec::new();
    let time = release.revision.time;
    for Built { platform, path, .. } in release.binaries.iter().filter(|it| it.package == "pid1") {
        let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let archive = archive::of_init(platform, &bytes, time)?;
        assets.extend(names(platform).map(|name| Asset::program(name, bytes.clone())));
        assets.push(archive);
    }
    assets.push(archive::of_xtask(time)?);
    Ok(assets)
}

/// The names under which the init of `platform` is released. People's scripts have them: they
/// never change.
pub fn names(platform: &Platform) -> [String; 2] {
    [format!("pid1-{}", platform.target), format!("pid1-{}", platform.slug())]
}

/// Whether `folder` has just `assets`, with their bytes and modes.
fn holds(folder: &Path, assets: &[Asset]) -> bool {
    let count = fs::read_dir(folder).map_or(0, Iterator::count);
    count == assets.len() && assets.iter().all(|asset| is_there(&folder.join(&asset.name), asset))
}

fn is_there(path: &Path, asset: &Asset) -> bool {
    fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o777 == asset.mode)
        && fs::read(path).is_ok_and(|bytes| bytes == asset.bytes)
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
    use std::collections::BTreeSet;

    use super::*;
    use crate::flags::Images;
    use crate::plan::base;
    use crate::platform::PLATFORMS;

    #[test]
    fn the_names_of_a_release_never_change() {
        let mut expected: BTreeSet<String> = ["from", "copy", "add"]
            .map(|it| format!("Dockerfile.{it}"))
            .into_iter()
            .chain(["NOTES.md", "SHA256SUMS", DIGESTS].map(String::from))
            .collect();
        let mut download = |name: String| {
            expected.insert(format!("{name}.sha256"));
            expected.insert(name);
        };
        for platform in PLATFORMS {
            names(platform).into_iter().for_each(&mut download);
            download(format!("pid1-{}.tar.gz", platform.slug()));
        }
        download("xtask-manual.tar.gz".to_string());
        expected.extend(PLATFORMS.iter().map(|it| format!("pid1-{}.cdx.json", it.slug())));
        expected.extend(["scratch", "static", "docker-testing"].map(sbom::name_of_image));
        let list = include_str!("../../tests/it/release/names.txt");
        let list: BTreeSet<_> = list.lines().map(String::from).collect();
        assert_eq!(list, expected);
    }

    /// What is not there before the distributions are locked, and the workflow has signed.
    #[test]
    fn neither_do_those_of_what_only_a_whole_release_has() {
        let plan = Plan::new(&Images::all(), &[]).unwrap();
        let on_distributions = plan.images.iter().map(|it| it.name.as_str());
        let on_distributions = on_distributions.filter(|it| base(&plan.chain(it)).is_some());
        let mut expected: Vec<_> = on_distributions.map(sbom::name_of_image).collect();
        expected.extend(SIGNATURES.map(String::from));
        expected.sort();
        let list = include_str!("../../tests/it/release/names-later.txt");
        assert_eq!(list.lines().collect::<Vec<_>>(), expected);
    }

    fn asset(name: &str, text: &str) -> Asset {
        Asset::plain(name, text)
    }

    fn entries(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_new_release_leaves_nothing_of_the_old_one() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("release");
        replace(&folder, &[asset("old", "1")]).unwrap();
        replace(&folder, &[asset("new", "2")]).unwrap();
        assert_eq!(entries(&folder), ["new"]);
        assert_eq!(entries(parent.path()), ["release"]);
    }

    #[test]
    fn a_release_that_fails_leaves_the_old_one() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("release");
        replace(&folder, &[asset("old", "1")]).unwrap();
        replace(&folder, &[asset("new", "2"), asset("\0", "no such name")]).unwrap_err();
        assert_eq!(entries(&folder), ["old"]);
        assert_eq!(entries(parent.path()), ["release"]);
    }

    #[test]
    fn a_release_is_up_to_date_if_every_byte_and_mode_is() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("release");
        let assets = [asset("a", "1"), Asset::program("b".to_string(), b"2".to_vec())];
        assert!(!holds(&folder, &assets));
        replace(&folder, &assets).unwrap();
        assert!(holds(&folder, &assets));
        assert!(!holds(&folder, &assets[..1]));
        fs::write(folder.join("a"), "3").unwrap();
        assert!(!holds(&folder, &assets));
        replace(&folder, &assets).unwrap();
        fs::set_permissions(folder.join("b"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!holds(&folder, &assets));
    }
}
