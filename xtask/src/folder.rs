//! Folders that are there whole or not at all.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::process::Interrupt;

/// The files of a folder: where each lies in it, and what is in it.
pub type Files<'a> = Vec<(String, Source<'a>)>;

/// What is in a file.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// What is in this file, which is of this many bytes and does not change.
    File(&'a Path, u64),
}

impl Source<'_> {
    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::File(_, size) => *size,
        }
    }

    fn is_at(&self, path: &Path) -> bool {
        match self {
            Source::Bytes(bytes) => fs::read(path).is_ok_and(|it| it == *bytes),
            Source::File(file, _) => is_same(file, path).unwrap_or(false),
        }
    }

    fn put_at(&self, path: &Path) -> io::Result<()> {
        match self {
            Source::Bytes(bytes) => fs::write(path, bytes),
            // On another file system it can only be copied.
            Source::File(file, _) => {
                fs::hard_link(file, path).or_else(|_| fs::copy(file, path).map(drop))
            }
        }
    }
}

fn is_same(a: &Path, b: &Path) -> io::Result<bool> {
    let (of_a, of_b) = (fs::metadata(a)?, fs::metadata(b)?);
    let is_one = (of_a.dev(), of_a.ino()) == (of_b.dev(), of_b.ino());
    Ok(is_one || (of_a.len() == of_b.len() && fs::read(a)? == fs::read(b)?))
}

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
    files.iter().all(|(path, source)| source.is_at(&place.join(path)))
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
    let new = aside.path().join("new");
    for (path, source) in files {
        interrupt.check()?;
        let path = new.join(path);
        fs::create_dir_all(path.parent().expect("it lies in `new`"))?;
        source.put_at(&path)?;
    }
    interrupt.check()?;
    Ok(swap(&new, place)?)
}

/// Puts the folder `new` at `place`. What was there is then at `new`: between two renames there
/// would be nothing, and another run might look, or put something there.
fn swap(new: &Path, place: &Path) -> io::Result<()> {
    let rename = |flag| renameat2(AT_FDCWD, new, AT_FDCWD, place, flag);
    loop {
        match rename(RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => {}
            // Some file systems, those over a network above all, have the plain rename only.
            Err(Errno::EINVAL) => return swap_plainly(new, place),
            done => return Ok(done?),
        }
        match rename(RenameFlags::RENAME_EXCHANGE) {
            // It has gone since.
            Err(Errno::ENOENT) => {}
            done => return Ok(done?),
        }
    }
}

fn swap_plainly(new: &Path, place: &Path) -> io::Result<()> {
    let old = new.with_extension("old");
    if place.exists() {
        fs::rename(place, &old)?;
    }
    fs::rename(new, place).inspect_err(|_| {
        // The first error is the one to tell; what was there is at least tried to be put back.
        let _ = fs::rename(&old, place);
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{self, ScopedJoinHandle};

    use super::*;

    #[track_caller]
    fn write(place: &Path, text: &str) {
        let files = vec![("a/b".to_string(), Source::Bytes(text.as_bytes()))];
        assert_eq!(put(&Interrupt::default(), place, &files).unwrap(), Outcome::Written);
    }

    #[test]
    fn who_looks_sees_the_old_folder_or_the_new_one() {
        let parent = tempfile::tempdir().unwrap();
        let (place, over) = (parent.path().join("place"), AtomicBool::new(false));
        write(&place, "first");
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    fs::metadata(&place).expect("it is always there");
                }
            });
            let place = &place;
            // Two who write there at once, while somebody looks.
            let writers = ["a", "b"].map(|who| {
                scope.spawn(move || {
                    (0..200).for_each(|count| write(place, &format!("{who} {count}")));
                })
            });
            let written = writers.map(ScopedJoinHandle::join);
            over.store(true, Ordering::Relaxed);
            assert!(written.iter().all(Result::is_ok));
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        assert_eq!(count(&place).unwrap(), 1);
    }

    #[test]
    fn what_is_there_is_replaced_by_any_way() {
        let parent = tempfile::tempdir().unwrap();
        let place = parent.path().join("place");
        fs::write(&place, "no folder").unwrap();
        write(&place, "first");
        for swap in [swap, swap_plainly] {
            let new = parent.path().join("new");
            fs::create_dir_all(new.join("c")).unwrap();
            swap(&new, &place).unwrap();
            assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
            assert!(place.join("c").exists());
            let _ = fs::remove_dir_all(&new);
        }
    }
}
