//! What builds, smoke tests and lints need beyond cargo: taken from this machine where it is the
//! right version, otherwise fetched into `target/tools`; the system is never changed.

mod linters;
mod qemu;
mod wheel;

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::Context;
use crate::paths;
use crate::platform::{Linking, Platform};
use crate::process;
use wheel::Wheel;

pub use linters::{actionlint, deny};
pub use qemu::qemu;

/// How long one rustup download may take: they hang now and then, and then a new one does not.
const RUSTUP_LIMIT: Duration = Duration::from_mins(2);

/// How long one download of a wheel or a package may take.
const FETCH_LIMIT: Duration = Duration::from_mins(5);

/// How long a program may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// How often a download is tried.
const TRIES: u32 = 3;

/// A registry with the referrers API, which only tests need: the crate, and its version.
const FERRO: [&str; 2] = ["ferro-oci-server", "1.0.0"];

/// The variables of cargo and rustup that say where things are and how they are fetched. All the
/// others can change what is built.
const HARMLESS: &[&str] =
    &["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_", "RUSTUP_"];

/// The pinned zig, and the cargo-zigbuild that makes a linker of it.
#[derive(Debug, Clone)]
pub struct Zig {
    /// The program `zig`.
    pub program: PathBuf,
    /// The program `cargo-zigbuild`.
    pub zigbuild: PathBuf,
    /// Where both keep what they can make again.
    pub cache: PathBuf,
}

/// zig and cargo-zigbuild: from `PATH` if they are exactly the pinned versions, or fetched.
pub fn zig(context: &Context) -> Result<Zig> {
    Ok(Zig {
        program: wheel(context, &wheel::ZIG)?,
        zigbuild: wheel(context, &wheel::ZIGBUILD)?,
        cache: paths::tools().join("cache"),
    })
}

/// zizmor, which looks for what an attacker could make of a workflow.
pub fn zizmor(context: &Context) -> Result<PathBuf> {
    wheel(context, &wheel::ZIZMOR)
}

fn wheel(context: &Context, wheel: &Wheel) -> Result<PathBuf> {
    if let Some(program) = wheel.fetched() {
        return Ok(program);
    }
    if let Some(program) = in_path(wheel.name) {
        let said = version_of(context, &program, wheel.version_argument);
        if said.is_some_and(|said| wheel.is_version(&said)) {
            return Ok(program);
        }
    }
    wheel.fetch(context)
}

/// A command of the Rust toolchain, without those of the `inherited` variables that would change
/// what it does: the same sources must give the same bytes on every machine.
pub fn rust_command(
    program: impl AsRef<OsStr>,
    inherited: impl IntoIterator<Item = OsString>,
) -> Command {
    let mut command = Command::new(program);
    command.current_dir(paths::root());
    for name in inherited {
        let text = name.to_string_lossy();
        let is_rust = ["CARGO", "RUST", "ZIG_"].iter().any(|start| text.starts_with(start));
        let is_harmless = HARMLESS.iter().any(|start| text.starts_with(start));
        // rustup sets its own for its children; `rust-toolchain.toml` is to decide.
        if is_rust && (!is_harmless || text == "RUSTUP_TOOLCHAIN") {
            command.env_remove(name);
        }
    }
    command
}

/// The names of this process's variables.
pub fn environment() -> impl Iterator<Item = OsString> {
    std::env::vars_os().map(|(name, _)| name)
}

/// Where the pinned toolchain is.
pub fn sysroot(context: &Context) -> Result<PathBuf> {
    let mut command = rust_command("rustc", environment());
    command.args(["--print", "sysroot"]);
    // Asked in every run and of no interest to anybody: not echoed.
    let output = process::output(&context.ui.silent(), &context.interrupt, command, VERSION_LIMIT)
        .context("cannot find the toolchain of `rust-toolchain.toml`")?;
    Ok(PathBuf::from(output.trim()))
}

/// The source of std, of the toolchain in `sysroot`.
pub fn library(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

/// Adds to the toolchain in `sysroot` what the build of `platforms` needs and it lacks.
pub fn rust(context: &Context, sysroot: &Path, platforms: &[&Platform]) -> Result<()> {
    let targets = sysroot.join("lib/rustlib");
    if !library(sysroot).join("Cargo.lock").exists() {
        rustup(context, &["component", "add", "rust-src"])?;
    }
    for platform in platforms.iter().filter(|it| it.linking == Linking::RustLld) {
        if !targets.join(platform.target).join("lib/self-contained/crt1.o").exists() {
            rustup(context, &["target", "add", platform.target])?;
        }
    }
    Ok(())
}

fn rustup(context: &Context, arguments: &[&str]) -> Result<()> {
    retried(context, RUSTUP_LIMIT, || {
        let mut command = rust_command("rustup", environment());
        command.args(arguments);
        command
    })
    .with_context(|| {
        let line = arguments.join(" ");
        format!("cannot complete the toolchain, run `rustup {line}` here and try again")
    })
}

/// Where [`ferro`] is.
pub fn ferro_folder() -> PathBuf {
    paths::tools().join(FERRO.join("-"))
}

/// The registry that some tests push to, built if it is not there yet; that takes a minute or two.
pub fn ferro(context: &Context) -> Result<()> {
    if ferro_folder().exists() {
        return Ok(());
    }
    let [name, version] = FERRO;
    assembled(&paths::tools(), &FERRO.join("-"), |half| {
        let mut cargo = rust_command("cargo", environment());
        cargo.args(["install", "--quiet", "--locked", name, "--version", version, "--root"]);
        cargo.arg(half);
        process::run(&context.ui, &context.interrupt, cargo)
    })
    .map(drop)
}

/// Runs a command that downloads something, again if it fails or hangs.
fn retried(context: &Context, limit: Duration, command: impl Fn() -> Command) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        let result = process::output(&context.ui, &context.interrupt, command(), limit);
        context.interrupt.check()?;
        match result {
            Ok(_) => return Ok(()),
            // A program that is not there will not be there the next time.
            Err(err) if tries == TRIES || err.is::<std::io::Error>() => return Err(err),
            Err(err) => context.ui.warn(format!("{err:#}; trying again")),
        }
    }
}

/// Makes the folder `name` of `tools` by `fill`, whole or not at all. Of two that make it at once
/// one wins, and both have it.
fn assembled(tools: &Path, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = tools.join(name);
    std::fs::create_dir_all(tools)
        .with_context(|| format!("cannot create `{}`", tools.display()))?;
    let prefix = format!(".{name}-");
    let half = tempfile::Builder::new().prefix(&prefix).tempdir_in(tools);
    let half = half.with_context(|| format!("cannot create a folder in `{}`", tools.display()))?;
    fill(half.path())?;
    // A temporary folder is its owner's alone; what it is to become is for everybody.
    std::fs::set_permissions(half.path(), Permissions::from_mode(0o755))
        .with_context(|| format!("cannot share `{}`", half.path().display()))?;
    match std::fs::rename(half.path(), &folder) {
        Err(_) if folder.exists() => Ok(folder),
        Err(err) => bail!("cannot create `{}`: {err}", folder.display()),
        Ok(()) => {
            // It has another name now, under which it stays.
            let _ = half.keep();
            Ok(folder)
        }
    }
}

/// The first program called `name` in `PATH`.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What `program` says to `argument`; nothing if it fails: then it is not what we are looking for.
fn version_of(context: &Context, program: &Path, argument: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.arg(argument);
    process::output(&context.ui.silent(), &context.interrupt, command, VERSION_LIMIT).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_change_the_bytes_is_not_inherited() {
        let names = [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_PROFILE_SMALL_OPT_LEVEL",
            "RUSTC_WRAPPER",
            "RUSTUP_TOOLCHAIN",
            "ZIG_LIB_DIR",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_MINE_INDEX",
            "RUSTUP_HOME",
            "PATH",
        ];
        let command = rust_command("cargo", names.map(OsString::from));
        let mut removed: Vec<_> = command.get_envs().map(|(name, _)| name).collect();
        removed.sort_unstable();
        let mut expected = names[..7].to_vec();
        expected.sort_unstable();
        assert_eq!(removed, expected);
    }

    fn entries(folder: &Path) -> Vec<OsString> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_fetch_that_fails_leaves_nothing() {
        let tools = tempfile::tempdir().unwrap();
        let error = assembled(tools.path(), "zig", |folder| {
            std::fs::write(folder.join("half"), "")?;
            bail!("no network")
        });
        assert_eq!(error.unwrap_err().to_string(), "no network");
        assert_eq!(entries(tools.path()).len(), 0);
    }

    #[test]
    fn of_two_that_fetch_at_once_one_wins_and_both_have_it() {
        let tools = tempfile::tempdir().unwrap();
        let outer = assembled(tools.path(), "zig", |late| {
            assembled(tools.path(), "zig", |early| Ok(std::fs::write(early.join("early"), "")?))?;
            Ok(std::fs::write(late.join("late"), "")?)
        });
        assert_eq!(outer.unwrap(), tools.path().join("zig"));
        assert_eq!(entries(&tools.path().join("zig")), ["early"]);
        assert_eq!(entries(tools.path()), ["zig"]);
    }

    #[test]
    fn a_program_that_is_not_there_is_not_found() {
        assert_eq!(in_path("no-program-has-this-name"), None);
    }
}
