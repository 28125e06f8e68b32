//! Files that are there whole or not at all.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The mode of a program.
pub const EXECUTABLE: u32 = 0o755;

/// The mode of everything else.
pub const PLAIN: u32 = 0o644;

/// Writes `path`, its folder too if need be. Who looks sees the old file or the new one.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let result = fs::create_dir_all(folder).and_then(|()| {
        let mut half = tempfile::NamedTempFile::new_in(folder)?;
        half.write_all(bytes)?;
        half.as_file().set_permissions(Permissions::from_mode(mode))?;
        half.persist(path)?;
        Ok(())
    });
    result.with_context(|| format!("cannot write `{}`", path.display()))
}

/// Replaces what stands between two marks in the file at `path`.
pub fn put_between(path: &Path, start: &str, end: &str, text: &str) -> Result<()> {
    let name = path.display();
    let old = fs::read_to_string(path).with_context(|| format!("cannot read `{name}`"))?;
    let (head, rest) =
        old.split_once(start).with_context(|| format!("`{name}` has no line `{start}`"))?;
    let (_, tail) =
        rest.split_once(end).with_context(|| format!("`{name}` has no line `{end}`"))?;
    fs::write(path, format!("{head}{start}\n{text}{end}{tail}"))
        .with_context(|| format!("cannot write `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_has_its_mode_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b");
        write(&file, b"old", PLAIN).unwrap();
        write(&file, b"new", EXECUTABLE).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let error = write(Path::new("/proc/nothing/here"), b"", PLAIN).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot write `/proc/nothing/here`: "));
    }
}
