//! The files of a release, and the first difference between them and those that were built again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::claim::is_name;
use super::files::bytes;
use crate::platform::{PLATFORMS, Platform};
use crate::registry::Repository;
use crate::release::{DIGESTS, Digests, SIGNATURES};

/// A folder with the files of a release.
pub struct Released {
    folder: PathBuf,
    /// Where it says its images are.
    pub repository: Repository,
    /// What its images are called.
    pub images: Vec<String>,
    /// Those that it has binaries for, in table order.
    pub platforms: Vec<&'static Platform>,
}

/// What was compared.
pub struct Compared {
    /// How many files are the same.
    pub files: usize,
    /// Their size, in bytes.
    pub bytes: u64,
    /// Built again, but not in the folder.
    pub lacking: Vec<String>,
    /// The signatures in the folder, which nobody can build.
    pub signatures: Vec<String>,
}

impl Released {
    /// Reads what the release in `folder` says of itself, which may come from anybody.
    pub fn read(folder: &Path) -> Result<(Released, Digests)> {
        let path = folder.join(DIGESTS);
        let text = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let says: Digests = serde_json::from_slice(&text)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let images: Vec<_> = says.images.iter().map(|it| it.name.clone()).collect();
        let wrong = images.iter().find(|it| !is_name(it));
        ensure!(wrong.is_none(), "`{}` is none of our images", wrong.map_or("", |it| it));
        let names: BTreeSet<_> = says.images.iter().flat_map(|it| it.platforms.keys()).collect();
        let is_named = |it: &&Platform| names.contains(&it.to_string());
        let platforms: Vec<_> = PLATFORMS.iter().filter(is_named).collect();
        ensure!(
            platforms.len() == names.len() && !names.is_empty(),
            "it is for platforms that are none of ours"
        );
        let repository = Repository::parse(&says.repository)?;
        Ok((Released { folder: folder.to_path_buf(), repository, images, platforms }, says))
    }

    /// Compares it with the files in `rebuilt`; a difference is an error, which names it.
    pub fn compare(&self, rebuilt: &Path) -> Result<Compared> {
        let (its, ours) = (names(&self.folder)?, names(rebuilt)?);
        let others = its.difference(&ours).cloned();
        let (signatures, others): (Vec<_>, Vec<_>) =
            others.partition(|it| SIGNATURES.contains(&it.as_str()));
        let mut compared = Compared {
            files: 0,
            bytes: 0,
            lacking: ours.difference(&its).cloned().collect(),
            signatures,
        };
        for name in its.intersection(&ours) {
            let read = |folder: &Path| {
                let path = folder.join(name);
                fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))
            };
            let (its, ours) = (read(&self.folder)?, read(rebuilt)?);
            if let Some(difference) = bytes(&its, &ours) {
                bail!("`{name}`: {difference}");
            }
            compared.files += 1;
            compared.bytes += its.len() as u64;
        }
        ensure!(others.is_empty(), "no build has made these files: {}", others.join(", "));
        Ok(compared)
    }
}

fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let step = || format!("cannot read `{}`", folder.display());
    let entries = fs::read_dir(folder).with_context(step)?;
    let name = |entry: std::io::Result<fs::DirEntry>| {
        Ok(entry.with_context(step)?.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect()
}
