//! qemu's user mode: runs one program of a foreign platform.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{FETCH_LIMIT, assembled, in_path, retried, version_of};
use crate::Context;
use crate::build::elf;
use crate::platform::Platform;
use crate::{paths, process};

/// 7.2 lacks system calls that an init needs: execveat, and becoming a subreaper.
const OLDEST: u32 = 8;

/// The folder of the fetched ones.
const FOLDER: &str = "qemu-user";

/// Where Debian and its like say what they are, and where their packages come from.
const RELEASE: &str = "/etc/os-release";
const SOURCES: &str = "/etc/apt/sources.list.d/debian.sources";

/// The static `qemu-NAME` that runs `platform`'s programs: from `PATH`, or the distribution's
/// package, downloaded and unpacked into `target/tools`.
pub fn qemu(context: &Context, platform: &Platform) -> Result<PathBuf> {
    let plain = format!("qemu-{}", platform.qemu);
    let fetched = paths::tools().join(FOLDER).join("usr/bin").join(&plain);
    let names = [format!("{plain}-static"), plain];
    let mut found = names.iter().filter_map(|name| in_path(name));
    if let Some(program) = found.find(|program| will_do(context, program)) {
        return Ok(program);
    }
    if !fetched.exists() {
        context.ui.say("fetching qemu-user into target/tools");
        let spinner = context.ui.spinner("fetching qemu-user");
        let done = assembled(&paths::tools(), FOLDER, |folder| fill(context, folder));
        spinner.finish_and_clear();
        done.with_context(|| {
            format!(
                "cannot fetch qemu to run {platform}; install qemu-user-static {OLDEST}.0 or \
                 newer, or say `--no-smoke {platform}`"
            )
        })?;
    }
    ensure!(fetched.exists(), "cannot run {platform}: the package qemu-user has no `{}`", names[1]);
    Ok(fetched)
}

/// Whether it is new enough, and static: inside an image there is no C library for it.
fn will_do(context: &Context, program: &Path) -> bool {
    let said = version_of(context, program, "--version");
    let major = said.and_then(|said| major(&said));
    let is_static = fs::read(program).is_ok_and(|bytes| elf::is_static(&bytes));
    major.is_some_and(|major| major >= OLDEST) && is_static
}

/// The first number of `qemu-arm version 10.0.2 (Debian …)`.
fn major(said: &str) -> Option<u32> {
    said.split_once("version ")?.1.split('.').next()?.parse().ok()
}

fn fill(context: &Context, folder: &Path) -> Result<()> {
    let sources =
        fs::read_to_string(SOURCES).with_context(|| format!("cannot read `{SOURCES}`"))?;
    let release =
        fs::read_to_string(RELEASE).with_context(|| format!("cannot read `{RELEASE}`"))?;
    let apt = tempfile::tempdir_in(folder).context("cannot create a folder for apt")?;
    let conf = configure(apt.path(), &sources_for(&sources, &release))?;
    retried(context, FETCH_LIMIT, || {
        let mut update = Command::new("apt-get");
        update.arg("--config-file").arg(&conf).arg("update");
        update
    })?;
    retried(context, FETCH_LIMIT, || {
        let mut download = Command::new("apt-get");
        download.arg("--config-file").arg(&conf).args(["download", "qemu-user"]);
        download.current_dir(apt.path());
        download
    })?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(package(apt.path())?).arg(folder);
    process::output(&context.ui, &context.interrupt, unpack, FETCH_LIMIT)?;
    apt.close().context("cannot remove apt's folder")
}

/// The machine's own sources; on bookworm, whose qemu is too old, those of its backports.
fn sources_for(sources: &str, release: &str) -> String {
    if !release.lines().any(|line| line == "VERSION_CODENAME=bookworm") {
        return sources.to_string();
    }
    let mut lines = Vec::new();
    for stanza in sources.split("\n\n").filter(|stanza| !stanza.contains("-security")) {
        for line in stanza.lines() {
            let is_suites = line.starts_with("Suites:");
            lines.push(if is_suites { "Suites: bookworm-backports" } else { line });
        }
        lines.push("");
    }
    lines.join("\n")
}

/// A configuration of our own in `folder`, under which apt reads and writes nothing of the
/// system's but how to reach the mirrors. Works as any user.
fn configure(folder: &Path, sources: &str) -> Result<PathBuf> {
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write `{}`", file.display()))
    };
    for name in ["sources", "state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(name)).with_context(|| format!("cannot create `{name}`"))?;
    }
    write("sources/debian.sources", sources)?;
    write("apt.conf", &apt_conf(folder)?)?;
    Ok(folder.join("apt.conf"))
}

fn apt_conf(folder: &Path) -> Result<String> {
    let folder = folder.to_str().context("the path of the repository is not UTF-8")?;
    ensure!(!folder.contains('"'), "the path of the repository has a `\"` in it");
    // The hooks are cleared because they clean up in the system's folders after every update.
    Ok(format!(
        r#"Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "{folder}/sources";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::Status "/dev/null";
Dir::Cache "{folder}/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"#
    ))
}

fn package(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder).context("cannot list apt's folder")? {
        let file = entry.context("cannot list apt's folder")?.path();
        if file.extension().is_some_and(|it| it == "deb") {
            return Ok(file);
        }
    }
    bail!("cannot find the package that apt downloaded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_off() {
        assert_eq!(major("qemu-arm version 10.0.2 (Debian 1:10.0.2+ds-2)\n"), Some(10));
        assert_eq!(major("qemu-arm version 7.2.17\n"), Some(7));
        assert_eq!(major("no such thing"), None);
    }

    const SOURCES: &str = "\
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
";

    #[test]
    fn bookworm_takes_it_from_its_backports() {
        let expected = "\
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm-backports
Components: main
";
        assert_eq!(sources_for(SOURCES, "ID=debian\nVERSION_CODENAME=bookworm\n"), expected);
    }

    #[test]
    fn a_newer_debian_takes_it_from_where_it_takes_everything() {
        assert_eq!(sources_for(SOURCES, "VERSION_CODENAME=trixie\n"), SOURCES);
    }
}
