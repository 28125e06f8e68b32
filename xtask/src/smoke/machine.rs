//! Whether and how this machine can run a platform's programs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::binfmt;
use crate::Context;
use crate::platform::Platform;

/// What runs a platform's programs here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Machine {
    /// The processor itself.
    Native,
    /// A qemu that the sandbox registers for itself.
    Qemu(PathBuf),
    /// Whatever somebody has registered for the whole machine.
    Registered,
}

impl Machine {
    /// What changes when what runs them does.
    pub fn stamp(&self, platform: &Platform) -> Result<String> {
        match self {
            Machine::Native => Ok(String::new()),
            Machine::Qemu(path) => stamp(path),
            Machine::Registered => {
                let entry = binfmt::registered(platform).unwrap_or_default();
                let path = binfmt::interpreter_of(&entry).unwrap_or_default();
                // It may have come from an image, and be nowhere here: then the entry has to do.
                Ok(stamp(path.as_ref()).unwrap_or(entry))
            }
        }
    }

    /// Finds it; the error says what to do where there is none.
    pub fn find(context: &Context, platform: &Platform) -> Result<Machine> {
        if platform.is_native() {
            return Ok(Machine::Native);
        }
        match crate::tools::qemu(context, platform) {
            Ok(qemu) => Ok(Machine::Qemu(qemu)),
            Err(_) if binfmt::is_registered(platform) => Ok(Machine::Registered),
            Err(err) => Err(err),
        }
    }
}

/// What changes when the file at `path` does.
pub fn stamp(path: &Path) -> Result<String> {
    let file = fs::metadata(path);
    let file = file.with_context(|| format!("cannot look at `{}`", path.display()))?;
    Ok(format!("{} {} {}", file.len(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_qemu_is_another_machine() {
        let folder = tempfile::tempdir().unwrap();
        let platform = "linux/s390x".parse().unwrap();
        let stamp = |text: &str| {
            let qemu = folder.path().join("qemu");
            fs::write(&qemu, text).unwrap();
            Machine::Qemu(qemu).stamp(platform).unwrap()
        };
        assert_ne!(stamp("7.2"), stamp("10.0.2"));
    }
}
