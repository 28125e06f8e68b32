//! Whether and how this machine can run a platform's programs.

use std::path::PathBuf;

use anyhow::Result;

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
