//! What passed before: an image that was run with these very bytes and checks is not run again.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::engine::Engine;
use super::machine::{Machine, stamp};
use crate::definition::Definition;
use crate::oci::layout::{Layout, sha256};
use crate::platform::Platform;
use crate::{files, paths};

/// One image on one platform, with all that decides what comes of running it.
pub struct Occasion {
    file: PathBuf,
    key: String,
}

impl Occasion {
    /// The image's bytes, the probe's, the definition's own checks, this program with all others,
    /// the kernel, who runs it, and with which versions of what: `machine` and `engine`.
    pub fn new(
        definition: &Definition,
        platform: &'static Platform,
        machine: &Machine,
        engine: Option<&(&Engine, String)>,
    ) -> Result<Occasion> {
        let layout = Layout::open(&paths::layout(&definition.name))?;
        let (manifest, _) = layout.manifest(platform)?;
        let probe = paths::binary(platform, "docker-testing");
        let probe =
            fs::read(&probe).with_context(|| format!("cannot read `{}`", probe.display()))?;
        // Not by its path: it may have been built anew since we were started.
        let program = stamp("/proc/self/exe".as_ref())?;
        let kernel = nix::sys::utsname::uname().context("cannot ask for the kernel's release")?;
        let parts = [
            manifest.digest().to_string(),
            sha256(&probe),
            format!("{:?}", definition.smoke),
            program,
            kernel.release().display().to_string(),
            nix::unistd::geteuid().to_string(),
            machine.stamp(platform)?,
            engine.map(|(_, version)| version.clone()).unwrap_or_default(),
        ];
        let key = sha256(parts.join("\n").as_bytes());
        let by = engine.map(|(engine, _)| format!("-{engine}")).unwrap_or_default();
        let file = format!("{}-{}{by}", definition.name, platform.slug());
        Ok(Occasion { file: paths::smoke().join(file), key })
    }

    /// How many checks were met on this occasion, if all were.
    pub fn passed(&self) -> Option<usize> {
        let text = fs::read_to_string(&self.file).ok()?;
        let (key, passed) = text.trim().split_once(' ')?;
        if key == self.key { passed.parse().ok() } else { None }
    }

    /// Remembers that all checks were met.
    pub fn remember(&self, passed: usize) -> Result<()> {
        files::write(&self.file, format!("{} {passed}\n", self.key).as_bytes(), files::PLAIN)
    }
}
