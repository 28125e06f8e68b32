//! `cargo xtask test`: every test this machine can run, and by name those it cannot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::platform::Platform;
use crate::{Context, build, flags, paths, platform, process, tools};

/// Something outside this repository that some tests talk to. Those tests are in the modules
/// named here, so that they can be left out as a whole, out loud.
struct Part {
    name: &'static str,
    modules: &'static [&'static str],
    /// A command that succeeds where the part is ready for use.
    probe: &'static [&'static str],
    remedy: &'static str,
    /// Whether `--require-all` insists on it.
    is_required: bool,
}

/// One call of `cargo test`.
struct Suite {
    package: &'static str,
    init: Init,
}

/// Which binary of pid1 is tested.
#[derive(Clone, Copy)]
enum Init {
    /// This machine's.
    Own,
    /// That of a platform it may need an emulator for.
    For(&'static Platform),
    /// One built for this, with `AddressSanitizer` in it.
    Sanitized,
    /// None: the tests inside of it, compiled for a platform whose programs run here.
    Inside(&'static Platform),
}

/// Package by package: together, cargo would build the xtask anew, with what the others ask of
/// nix. The contract of the init is tested for a 32-bit and a big-endian platform, too, and once
/// more with every access to memory checked. What is inside of it is tested with 32 bits, too,
/// where that takes no emulator: one would need minutes for what chance makes up.
fn suites() -> Vec<Suite> {
    let foreign: [&Platform; 3] = ["linux/386", "linux/arm/v7", "linux/s390x"]
        .map(|name| name.parse().expect("it is in the table"));
    let inside = foreign.into_iter().filter(|it| it.is_native()).map(Init::Inside);
    let inits = [Init::Own].into_iter().chain(foreign.map(Init::For)).chain([Init::Sanitized]);
    let inits = inits.chain(inside);
    let contract = inits.map(|init| Suite { package: "pid1", init });
    let others = ["docker-testing", "xtask"].map(|package| Suite { package, init: Init::Own });
    contract.chain(others).collect()
}

const INSTALL: &str = "on Debian 12, `.ci/install` installs it";

const PARTS: &[Part] = &[
    Part {
        name: "docker",
        modules: &["docker::"],
        probe: &["docker", "version"],
        remedy: "on Debian 12, `.ci/install` installs it and `export DOCKER_HOST=$(.ci/engine start)` starts it",
        is_required: true,
    },
    Part {
        name: "podman",
        modules: &["podman::"],
        probe: &["podman", "--version"],
        remedy: INSTALL,
        is_required: true,
    },
    Part {
        name: "a registry",
        modules: &["docker_registry::", "distributions::", "refresh::"],
        probe: &["docker-registry", "--version"],
        remedy: INSTALL,
        is_required: true,
    },
    Part {
        name: "skopeo",
        modules: &["skopeo::", "docker_registry::"],
        probe: &["skopeo", "--version"],
        remedy: INSTALL,
        is_required: true,
    },
    Part {
        name: "a registry with the referrers API",
        modules: &["ferro::"],
        probe: &["sh", "-c", "command -v ferro-oci-server"],
        remedy: "`cargo xtask test --require-all` builds it into target/tools",
        is_required: true,
    },
    // Of these two, GitHub's Ubuntu has no packages.
    Part {
        name: "crane",
        modules: &["crane::"],
        probe: &["crane", "version"],
        remedy: INSTALL,
        is_required: false,
    },
    Part {
        name: "oras",
        modules: &["oras::"],
        probe: &["oras", "version"],
        remedy: INSTALL,
        is_required: false,
    },
    Part {
        name: "umoci",
        modules: &["umoci::"],
        probe: &["umoci", "--version"],
        remedy: INSTALL,
        is_required: true,
    },
    Part {
        name: "faketime",
        modules: &["clock::"],
        probe: &["faketime", "--version"],
        remedy: INSTALL,
        is_required: true,
    },
    Part {
        name: "npm",
        modules: &["lint::"],
        probe: &["npm", "--version"],
        remedy: INSTALL,
        is_required: true,
    },
    Part {
        name: "mandoc, fish and zsh",
        modules: &["manual::"],
        probe: &["sh", "-c", "command -v mandoc && command -v fish && command -v zsh"],
        remedy: INSTALL,
        is_required: true,
    },
    // Ubuntu has not all platforms in one place.
    Part {
        name: "Debian's packages",
        modules: &["distributions::", "refresh::"],
        probe: &["sh", "-c", "apt-get --version && [ -f /etc/apt/sources.list.d/debian.sources ]"],
        remedy: "Debian 12 has them",
        is_required: false,
    },
    // Nobody can install that; GitHub's runners are ordinary users.
    Part {
        name: "root's rights",
        modules: &["compare::"],
        probe: &["sh", "-c", "[ \"$(id -u)\" = 0 ]"],
        remedy: "run it as root",
        is_required: false,
    },
];

/// Runs `cargo test` over the workspace, without the tests whose parts are missing; those are
/// named last, and an error where everything is required.
pub fn test(context: &Context, flags: &flags::Test) -> Result<()> {
    if flags.require_all {
        tools::ferro(context)?;
    }
    let missing: Vec<_> = PARTS.iter().filter(|part| !is_ready(part.probe)).collect();
    let required: Vec<_> = missing.iter().copied().filter(|part| part.is_required).collect();
    if flags.require_all && !required.is_empty() {
        bail!("cannot run all tests, this machine lacks {}", list(&required));
    }
    crate::dist::for_tests(context)?;
    let skipped: Vec<_> = missing.iter().flat_map(|part| part.modules).copied().collect();
    let mut failed = Vec::new();
    for suite in suites() {
        let command = cargo_test(context, &suite, flags, &skipped)?;
        if process::run(&context.ui, &context.interrupt, command).is_err() {
            context.interrupt.check()?;
            failed.push(suite.name());
        }
    }
    for part in &missing {
        let modules = part.modules.join(" and ");
        context.ui.warn(format!(
            "not run: the tests in {modules} need {}, which this machine lacks; {}",
            part.name, part.remedy
        ));
    }
    if !failed.is_empty() {
        bail!("tests of {} failed; what failed is above", failed.join(", "));
    }
    Ok(())
}

impl Suite {
    /// Whether the init is used hard: 30 s of signals, 100,000 orphans, 500 inits in a row. Once
    /// for this machine, and for a 32-bit and a big-endian platform: a minute or two each.
    fn is_hard(&self) -> bool {
        match self.init {
            Init::Own => self.package == "pid1",
            Init::For(platform) => !platform.is_native(),
            Init::Sanitized | Init::Inside(_) => false,
        }
    }

    fn name(&self) -> String {
        match self.init {
            Init::Own => self.package.to_string(),
            Init::For(platform) => format!("{} for {platform}", self.package),
            Init::Sanitized => format!("{} with AddressSanitizer", self.package),
            Init::Inside(platform) => format!("the inside of {} for {platform}", self.package),
        }
    }
}

fn cargo_test(
    context: &Context,
    suite: &Suite,
    flags: &flags::Test,
    skipped: &[&str],
) -> Result<Command> {
    let mut command = Command::new("cargo");
    command.args(["test", "--package", suite.package, "--locked", "--no-fail-fast"]);
    match suite.init {
        Init::Own => {}
        Init::For(_) | Init::Sanitized => drop(command.args(["--test", "it"])),
        Init::Inside(platform) => drop(command.args(["--bins", "--target", platform.target])),
    }
    let binary = match suite.init {
        Init::Own => paths::binary(platform::host(), "pid1"),
        Init::For(platform) => {
            if !platform.is_native() {
                command.env("PID1_RUNNER", tools::qemu(context, platform)?);
            }
            paths::binary(platform, "pid1")
        }
        Init::Sanitized => {
            command.env("PID1_SANITIZED", "1");
            sanitized(context)?
        }
        Init::Inside(platform) => {
            command.envs([build::linker(platform)]);
            paths::binary(platform, "pid1")
        }
    };
    command.arg("--").args(&flags.filter);
    command.args(skipped.iter().flat_map(|module| ["--skip", module]));
    command.env("PID1_BINARY", binary).env("PID1_HARD", if suite.is_hard() { "1" } else { "0" });
    Ok(command)
}

/// Builds pid1 with `AddressSanitizer`, which rustup's toolchain has for this machine's own target.
fn sanitized(context: &Context) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = paths::target().join("asan");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--locked", "--package=pid1", "--target", &target]);
    cargo.arg("--target-dir").arg(&folder);
    // The option is not stable; it is for tests alone.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    process::run(&context.ui, &context.interrupt, cargo)?;
    Ok(folder.join(target).join("debug/pid1"))
}

fn is_ready(probe: &[&str]) -> bool {
    let (program, arguments) = probe.split_first().expect("a probe is a command");
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps some of them where an ordinary user's PATH does not lead; one is built by us.
    let path = std::env::split_paths(&path)
        .chain([Path::new("/usr/sbin").into(), Path::new("/sbin").into()])
        .chain([tools::ferro_folder().join("bin")])
        .collect::<Vec<_>>();
    let Ok(path) = std::env::join_paths(path) else { return false };
    let quiet = || Stdio::null();
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path).stdin(quiet()).stdout(quiet()).stderr(quiet());
    command.status().is_ok_and(|status| status.success())
}

fn list(parts: &[&Part]) -> String {
    let parts: Vec<_> =
        parts.iter().map(|part| format!("{} ({})", part.name, part.remedy)).collect();
    parts.join(", ")
}
