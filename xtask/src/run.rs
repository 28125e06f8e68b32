//! `cargo xtask run`: what `docker run` does, with an image that was built, and without Docker.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::oci::layout::Layout;
use crate::smoke::container::{Cue, Deed, Run};
use crate::smoke::sandbox::{self, Status};
use crate::smoke::{Machine, Rootfs};
use crate::{Context, flags, paths, platform};

/// Runs the command and leaves with its code: 128 + signal if it was killed, 124 if its time was
/// over.
pub fn command(context: &Context, flags: &flags::Run) -> Result<ExitCode> {
    let platform = flags.platform.unwrap_or_else(platform::host);
    let machine = Machine::find(context, platform)?;
    let layout = Layout::open(&paths::layout(&flags.image))?;
    let rootfs = Rootfs::unpack(&flags.image, &layout, platform, &machine)?;
    let ran = sandbox::run(&rootfs, &wishes(flags)?, &context.interrupt)?;
    let code = match ran.status {
        Status::Exited(code) => code,
        Status::Killed(signal) => 128 + signal,
        Status::TimedOut => 124,
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn wishes(flags: &flags::Run) -> Result<Run> {
    let words = |program: &String| match program.as_str() {
        "" => Vec::new(),
        program => vec![program.to_string()],
    };
    Ok(Run {
        entrypoint: flags.entrypoint.as_ref().map(words),
        arguments: flags.command.clone(),
        user: flags.user.clone(),
        read_only: flags.read_only,
        then: flags.signal.as_deref().map(signal).transpose()?,
        deadline: Some(Duration::from_secs(flags.deadline)),
        echo: true,
        ..Run::default()
    })
}

fn signal(text: &str) -> Result<(Cue, Deed)> {
    let (number, cue) = match text.split_once('@') {
        Some((number, text)) => (number, Cue::Printed(text.to_string())),
        None => (text, Cue::HasChild),
    };
    let number = number.parse();
    let number =
        number.with_context(|| format!("`{text}` does not begin with a signal's number"))?;
    Ok((cue, Deed::Signal(number)))
}
