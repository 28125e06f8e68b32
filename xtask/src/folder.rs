//! Folders that are there whole or not at all.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process::Interrupt;

/// The files of a folder: where each lies in it, and what is in it.
pub type Files<'a> = Vec<(String, &'a [u8])>;

/// What [`put`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The folder was written.
    Written,
    /// It was there already, byte for byte, and has not been touched.
    UpToDate,
}

/// Makes `place` a folder with exactly these files. Until the last moment what was there before
/// stays; whatever goes wrong (a full disk, Ctrl-C), it stays for good.
pub fn put(interrupt: &Interrupt, place: &Path, files: &Files) -> Result<Outcome> {
    if holds(place, files) {
        return Ok(Outcome::UpToDate);
    }
    write(interrupt, place, files)
        .with_context(|| format!("cannot write `{}`", place.display()))?;
    Ok(Outcome::Written)
}

/// Whether `place` has these files with these bytes. What cannot be read is written anew.
fn holds(place: &Path, files: &Files) -> bool {
    files.iter().all(|(path, bytes)| fs::read(place.join(path)).is_ok_and(|it| it == *bytes))
        && count(place).is_ok_and(|count| count == files.len())
}

fn count(folder: &Path) -> std::io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}

fn write(interrupt: &Interrupt, place: &Path, files: &Files) -> Result<()> {
    let parent = place.parent().context("it has no parent")?;
    fs::create_dir_all(parent)?;
    // Beside its place, to be on the same file system. It removes itself on every way out.
    let aside = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(parent)?;
    let (new, old) = (aside.path().join("new"), aside.path().join("old"));
    for (path, bytes) in files {
        interrupt.check()?;
        let path = new.join(path);
        fs::create_dir_all(path.parent().expect("it lies in `new`"))?;
        fs::write(path, bytes)?;
    }
    interrupt.check()?;
    if place.exists() {
        fs::rename(place, &old)?;
    }
    fs::rename(&new, place).inspect_err(|_| {
        // The first error is the one to tell; what was there is at least tried to be put back.
        let _ = fs::rename(&old, place);
    })?;
    Ok(())
}
