//! Where a check runs: in the sandbox or by an engine.

use anyhow::Result;

use super::checks::{EXPECTED, Surroundings};
use super::container::Run;
use super::engine::Loaded;
use super::rootfs::Rootfs;
use super::sandbox::{self, Ran};
use super::users;
use crate::process::Interrupt;

/// One image for one platform, ready to be run any number of times.
pub enum Place<'a> {
    /// Unpacked.
    Sandbox(&'a Rootfs),
    /// Loaded, as well.
    Engine(Loaded<'a>),
}

impl Place<'_> {
    /// The image's files.
    pub fn rootfs(&self) -> &Rootfs {
        match self {
            Place::Sandbox(rootfs) => rootfs,
            Place::Engine(loaded) => loaded.rootfs,
        }
    }

    /// Runs it once.
    pub fn run(&self, run: &Run, interrupt: &Interrupt) -> Result<Ran> {
        match self {
            Place::Sandbox(rootfs) => sandbox::run(rootfs, run, interrupt),
            Place::Engine(loaded) => loaded.run(run, interrupt),
        }
    }

    /// What [`Place::run`] does, as a line that could be typed.
    pub fn line(&self, run: &Run) -> String {
        match self {
            Place::Sandbox(rootfs) => run.line(&rootfs.name),
            Place::Engine(loaded) => loaded.line(run),
        }
    }

    /// What decides which checks there are.
    pub fn surroundings(&self) -> Surroundings {
        let rootfs = self.rootfs();
        let is_engine = matches!(self, Place::Engine(_));
        Surroundings {
            only_us: users::only_us() && !is_engine,
            is_emulated: !rootfs.platform.is_native(),
            is_engine,
            programs: EXPECTED.into_iter().filter(|program| rootfs.finds(program)).collect(),
        }
    }
}
