//! The cross build: cargo makes a static binary for every platform, and each is checked.

pub mod crates;
pub mod elf;

mod audit;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::Context;
use crate::platform::{Linking, Platform};
use crate::tools::{self, Zig};
use crate::{files, paths, process};
use crates::{Crate, Facts, Graph};

/// How long cargo may take to say what it would compile.
const PLAN_LIMIT: Duration = Duration::from_mins(2);

/// What is built for every platform: the init, and the programs that show and test it.
pub const PACKAGES: [&str; 2] = ["pid1", "docker-testing"];

/// What is true of all our binaries: std is part of the optimised whole, a panic is one
/// instruction, nothing in them tells where they were built, and they need no relocation at start.
/// Without relocations nothing would ever protect a RELRO segment: it would only cost its padding,
/// 60 KB on ARM. Nothing unwinds, so that nobody would read the tables for it.
const FLAGS: [&str; 6] = [
    "-Zunstable-options",
    "-Cpanic=immediate-abort",
    "-Zlocation-detail=none",
    "-Crelocation-model=static",
    "-Crelro-level=off",
    "-Cforce-unwind-tables=no",
];

/// A binary that was built and checked.
#[derive(Debug, Clone)]
pub struct Built {
    pub platform: &'static Platform,
    /// One of [`PACKAGES`].
    pub package: &'static str,
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// Whether it was there already.
    pub is_fresh: bool,
    /// What it is made of, itself first.
    pub crates: Vec<Crate>,
}

/// Where things are on this machine and must not leave a trace in a binary.
struct Places {
    cargo_home: PathBuf,
    sysroot: PathBuf,
}

/// Builds [`PACKAGES`] for `platforms` and installs them as [`paths::binary`].
pub fn build(context: &Context, platforms: &[&'static Platform]) -> Result<Vec<Built>> {
    let sysroot = tools::sysroot(context)?;
    tools::rust(context, &sysroot, platforms)?;
    let places = Places { cargo_home: cargo_home()?, sysroot };
    let linked_by = |linking| -> Vec<&'static Platform> {
        platforms.iter().copied().filter(|platform| platform.linking == linking).collect()
    };
    let mut compiled = Vec::new();
    let ours = linked_by(Linking::RustLld);
    if !ours.is_empty() {
        compiled.extend(compile(context, command(&ours, None, &places, tools::environment()))?);
    }
    let foreign = linked_by(Linking::Zig);
    if !foreign.is_empty() {
        let zig = tools::zig(context)?;
        let command = command(&foreign, Some(&zig), &places, tools::environment());
        compiled.extend(compile(context, command)?);
    }
    let graph = graph(context, platforms, &places)?;
    let facts = Facts::read(&places.sysroot)?;
    let mut built = Vec::new();
    for platform in platforms {
        for package in PACKAGES {
            context.interrupt.check()?;
            let crates = graph.crates(package, platform, &facts)?;
            built.push(install(platform, package, &compiled, crates)?);
        }
    }
    report(context, platforms, &built);
    Ok(built)
}

/// Prints `path size`, a line for every binary.
pub fn print(built: &[Built]) {
    for Built { path, size, .. } in built {
        println!("{} {size}", path.display());
    }
}

fn report(context: &Context, platforms: &[&'static Platform], built: &[Built]) {
    for platform in platforms {
        let of_platform: Vec<_> = built.iter().filter(|it| it.platform == *platform).collect();
        let state = if of_platform.iter().all(|it| it.is_fresh) { "up to date" } else { "built" };
        let sizes: Vec<_> =
            of_platform.iter().map(|it| format!("{} {} bytes", it.package, it.size)).collect();
        context.ui.say(format!("{state:>10}  {platform}: {}", sizes.join(", ")));
    }
    if built.iter().all(|it| it.is_fresh) {
        context.ui.say("build: nothing had to be rebuilt");
    }
}

/// The one call of cargo that builds everything for `platforms`, all of which link the same way.
fn command(
    platforms: &[&Platform],
    zig: Option<&Zig>,
    places: &Places,
    inherited: impl IntoIterator<Item = OsString>,
) -> Command {
    let program = zig.map_or(Path::new("cargo"), |zig| &zig.zigbuild);
    let mut command = tools::rust_command(program, inherited);
    command.arg(if zig.is_some() { "zigbuild" } else { "build" });
    command.args(["--quiet", "--locked", "--message-format=json-render-diagnostics"]);
    command.args(["--profile=small", "-Zbuild-std=std,panic_abort"]);
    command.arg("-Zbuild-std-features=optimize_for_size");
    command.arg("--target-dir").arg(paths::cross());
    command.args(PACKAGES.map(|package| format!("--package={package}")));
    command.args(platforms.iter().map(|platform| format!("--target={}", platform.target)));
    // A wrapper in the user's own cargo configuration is switched off by an empty name.
    command.envs([
        ("RUSTC_BOOTSTRAP", "1"),
        ("RUSTC_WRAPPER", ""),
        ("RUSTC_WORKSPACE_WRAPPER", ""),
    ]);
    let flags = flags(zig.is_some(), places);
    // Either of these stands above all flags in the user's own cargo configuration.
    if flags.iter().any(|flag| flag.contains(char::is_whitespace)) {
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    } else {
        command.env("RUSTFLAGS", flags.join(" "));
    }
    if let Some(zig) = zig {
        // Named like this, or it would prefer a Python package that may be of any version.
        command.env("CARGO_ZIGBUILD_ZIG_COMMAND", &zig.program);
        command.env("CARGO_ZIGBUILD_CACHE_DIR", &zig.cache);
        command.env("ZIG_GLOBAL_CACHE_DIR", zig.cache.join("zig"));
        command.env("ZIG_LOCAL_CACHE_DIR", zig.cache.join("zig"));
    } else {
        command.envs(platforms.iter().map(|platform| linker(platform)));
    }
    command
}

/// The variable that has cargo link for `platform` without a compiler of C.
pub fn linker(platform: &Platform) -> (String, &'static str) {
    let target = platform.target.to_uppercase().replace('-', "_");
    (format!("CARGO_TARGET_{target}_LINKER"), "rust-lld")
}

/// What cargo would compile. Nothing is linked, so that no linker matters.
fn graph(context: &Context, platforms: &[&Platform], places: &Places) -> Result<Graph> {
    let mut command = command(platforms, None, places, tools::environment());
    command.args(["--unit-graph", "-Zunstable-options"]);
    // Asked in every run and of no interest to anybody: not echoed.
    let ui = context.ui.silent();
    let answer = process::output(&ui, &context.interrupt, command, PLAN_LIMIT)
        .context("cannot learn what the binaries are made of")?;
    Graph::parse(&answer)
}

fn flags(is_zig: bool, places: &Places) -> Vec<String> {
    let mut flags = FLAGS.map(ToString::to_string).to_vec();
    if is_zig {
        // zig brings the start files and the C library.
        flags.push("-Clink-self-contained=no".to_string());
    }
    // Our own sources cargo names relative to the checkout: where that is, is in no flag, so that
    // a copy of the target folder serves another checkout, too.
    let Places { cargo_home, sysroot } = places;
    for (place, name) in [(cargo_home, "/cargo"), (sysroot, "/rust")] {
        flags.push(format!("--remap-path-prefix={}={name}", place.display()));
    }
    flags
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = std::env::var_os("HOME").context("cannot find cargo's home: set `HOME`")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// A message of cargo's about something it made or found made.
#[derive(Debug, Deserialize)]
struct Artifact {
    target: Named,
    filenames: Vec<PathBuf>,
    executable: Option<PathBuf>,
    fresh: bool,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// Runs cargo, shows how far it is, and gives the programs it made or found made.
fn compile(context: &Context, command: Command) -> Result<Vec<Artifact>> {
    let spinner = context.ui.spinner("cargo");
    let mut programs = Vec::new();
    let result = process::lines(&context.ui, &context.interrupt, command, |line| {
        let Some(artifact) = artifact(line) else { return };
        if !artifact.fresh {
            let target = platform_of(&artifact).map_or(String::new(), |it| format!(" for {it}"));
            spinner.set_message(format!("compiled {}{target}", artifact.target.name));
            if artifact.executable.is_some() && PACKAGES.contains(&artifact.target.name.as_str()) {
                context.ui.say(format!("{:>10}  {}{target}", "compiled", artifact.target.name));
            }
        }
        if artifact.executable.is_some() {
            programs.push(artifact);
        }
    });
    spinner.finish_and_clear();
    result.context("cannot build the binaries")?;
    Ok(programs)
}

fn artifact(line: &str) -> Option<Artifact> {
    if !line.contains(r#""reason":"compiler-artifact""#) {
        return None;
    }
    serde_json::from_str(line).ok()
}

/// The platform whose folder an artifact lies in; none, if it is for this machine.
fn platform_of(artifact: &Artifact) -> Option<&'static Platform> {
    let file = artifact.filenames.first()?;
    let folders: Vec<_> = file.iter().collect();
    crate::platform::PLATFORMS.iter().find(|it| folders.contains(&it.target.as_ref()))
}

/// Checks what cargo made, and puts it where everything else looks for it.
fn install(
    platform: &'static Platform,
    package: &'static str,
    compiled: &[Artifact],
    crates: Vec<Crate>,
) -> Result<Built> {
    let is_it = |it: &&Artifact| it.target.name == package && platform_of(it) == Some(platform);
    let artifact = compiled.iter().find(is_it);
    let artifact = artifact.with_context(|| format!("cargo made no `{package}` for {platform}"))?;
    let program = artifact.executable.as_ref().context("cargo made no program")?;
    let bytes =
        fs::read(program).with_context(|| format!("cannot read `{}`", program.display()))?;
    let unusable = || format!("cannot use `{}` for {platform}", program.display());
    elf::check(&bytes, platform).with_context(unusable)?;
    let bytes = audit::tell(&bytes, &crates).with_context(unusable)?;
    let path = paths::binary(platform, package);
    let is_same = fs::read(&path).is_ok_and(|old| old == bytes);
    if !is_same {
        files::write(&path, &bytes, files::EXECUTABLE)?;
    }
    let size = bytes.len() as u64;
    ensure!(size > 0, "cargo made an empty `{}`", program.display());
    Ok(Built { platform, package, path, size, is_fresh: artifact.fresh && is_same, crates })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::PLATFORMS;

    fn places(home: &str) -> Places {
        Places {
            cargo_home: Path::new(home).join(".cargo"),
            sysroot: Path::new(home).join(".rustup/it"),
        }
    }

    fn zig() -> Zig {
        Zig {
            program: "/t/zig".into(),
            zigbuild: "/t/cargo-zigbuild".into(),
            cache: "/t/cache".into(),
        }
    }

    fn variables(command: &Command) -> Vec<String> {
        let shown = command.get_envs().filter_map(|(name, value)| {
            Some(format!("{}={}", name.to_string_lossy(), value?.to_string_lossy()))
        });
        shown.collect()
    }

    fn words(command: &Command) -> Vec<String> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn several_platforms_are_one_call() {
        let command = command(&[&PLATFORMS[0], &PLATFORMS[1]], None, &places("/home/me"), []);
        let cross = paths::cross().display().to_string();
        let expected = [
            "cargo",
            "build",
            "--quiet",
            "--locked",
            "--message-format=json-render-diagnostics",
            "--profile=small",
            "-Zbuild-std=std,panic_abort",
            "-Zbuild-std-features=optimize_for_size",
            "--target-dir",
            &cross,
            "--package=pid1",
            "--package=docker-testing",
            "--target=x86_64-unknown-linux-musl",
            "--target=aarch64-unknown-linux-musl",
        ];
        assert_eq!(words(&command), expected);
        let flags = "RUSTFLAGS=-Zunstable-options -Cpanic=immediate-abort -Zlocation-detail=none \
                     -Crelocation-model=static -Crelro-level=off \
                     -Cforce-unwind-tables=no --remap-path-prefix=/home/me/.cargo=/cargo \
                     --remap-path-prefix=/home/me/.rustup/it=/rust";
        let expected = [
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld",
            "RUSTC_BOOTSTRAP=1",
            "RUSTC_WORKSPACE_WRAPPER=",
            "RUSTC_WRAPPER=",
            flags,
        ];
        assert_eq!(variables(&command), expected);
    }

    #[test]
    fn zig_links_what_rustup_has_no_c_library_for() {
        let command = command(&[&PLATFORMS[6]], Some(&zig()), &places("/home/me"), []);
        assert_eq!(words(&command)[..2], ["/t/cargo-zigbuild", "zigbuild"]);
        assert_eq!(words(&command).last().unwrap(), "--target=s390x-unknown-linux-musl");
        let variables = variables(&command);
        let has = |start: &str| variables.iter().any(|it| it.starts_with(start));
        assert!(has("CARGO_ZIGBUILD_ZIG_COMMAND=/t/zig"));
        assert!(has("ZIG_GLOBAL_CACHE_DIR=/t/cache/zig"));
        assert!(variables.iter().any(|it| it.contains(" -Clink-self-contained=no ")));
        assert!(!has("CARGO_TARGET_"));
    }

    #[test]
    fn a_space_in_a_path_does_not_split_a_flag() {
        let command = command(&[&PLATFORMS[0]], None, &places("/my home"), []);
        let variables = variables(&command);
        let separated = "\u{1f}--remap-path-prefix=/my home/.cargo=/cargo\u{1f}";
        let is_it = |it: &String| it.starts_with("CARGO_ENCODED_RUSTFLAGS=");
        assert!(variables.iter().any(|it| is_it(it) && it.contains(separated)));
    }

    #[test]
    fn an_artifact_knows_its_platform() {
        let line = r#"{"reason":"compiler-artifact","package_id":"x","target":{"name":"pid1"},
            "filenames":["/x/target/cross/s390x-unknown-linux-musl/small/pid1"],
            "executable":"/x/target/cross/s390x-unknown-linux-musl/small/pid1","fresh":true}"#;
        let artifact = artifact(line).unwrap();
        assert!(artifact.fresh);
        assert_eq!(platform_of(&artifact), Some(&PLATFORMS[6]));
    }

    #[test]
    fn cargo_s_other_messages_are_none_of_ours() {
        assert!(artifact(r#"{"reason":"build-finished","success":true}"#).is_none());
    }
}
