//! The inits that are measured, pid1 first.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{Context, paths, platform, process};

/// One init, or none.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What tables call it.
    pub name: &'static str,
    /// Its binary; `None` where the program runs as process 1 itself.
    pub path: Option<PathBuf>,
}

impl Peer {
    /// The words that run `program` under this init.
    pub fn command(&self, program: &[&OsStr]) -> Command {
        let words: Vec<&OsStr> = match &self.path {
            Some(path) => [path.as_os_str(), OsStr::new("--")]
                .into_iter()
                .chain(program.iter().copied())
                .collect(),
            None => program.to_vec(),
        };
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        clean(&mut command);
        command
    }
}

/// Gives `command` a container's environment: cargo's own has a search path for libraries, which
/// costs a dynamic program hundreds of system calls.
pub fn clean(command: &mut Command) {
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
}

/// What Debian calls them.
const DEBIAN: [&str; 4] = ["tini", "tini-static", "dumb-init", "catatonit"];

/// pid1, Debian's inits, a static dumb-init where musl's compiler is at hand, and no init at all.
pub fn all(context: &Context) -> Result<Vec<Peer>> {
    let mut peers = vec![own()?];
    for name in DEBIAN {
        peers.push(debian(context, name)?);
    }
    match static_dumb_init(context) {
        Ok(path) => peers.push(Peer { name: "dumb-init static musl", path: Some(path) }),
        Err(err) => context.ui.warn(format!("not measured: dumb-init static musl: {err:#}")),
    }
    peers.push(Peer { name: "no init", path: None });
    Ok(peers)
}

/// pid1, as it was built.
pub fn own() -> Result<Peer> {
    let pid1 = paths::binary(platform::host(), "pid1");
    ensure!(pid1.exists(), "cannot measure pid1: it is not built, run `cargo xtask build` first");
    Ok(Peer { name: "pid1", path: Some(pid1) })
}

/// One of Debian's: where PATH or Debian has it, or else fetched.
pub fn debian(context: &Context, name: &'static str) -> Result<Peer> {
    let path = find(name).map_or_else(|| fetched(context, name), Ok);
    let path = path.with_context(|| {
        format!(
            "cannot measure {name}: it is not on PATH, run `apt-get install tini dumb-init \
             catatonit`"
        )
    })?;
    Ok(Peer { name, path: Some(path) })
}

/// From Debian's packages, which nothing is installed of.
fn fetched(context: &Context, name: &str) -> Result<PathBuf> {
    let script = "apt-get -qq download tini dumb-init catatonit
        for package in *.deb; do dpkg-deb --extract $package .; done";
    let program = made(context, "debian-inits", script)?.join("usr/bin").join(name);
    ensure!(program.exists(), "there is no `{}`", program.display());
    Ok(program)
}

/// Where `name` is: on PATH, or where Debian puts it.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/sbin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(usual);
    folders.map(|folder| folder.join(name)).find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// dumb-init as Alpine builds it, from Debian's source package and musl's compiler.
fn static_dumb_init(context: &Context) -> Result<PathBuf> {
    Ok(made(context, "dumb-init-static-musl", STATIC_DUMB_INIT)?.join("dumb-init"))
}

/// The folder `name` of the tools; what is in it `script` has made, once.
pub fn made(context: &Context, name: &str, script: &str) -> Result<PathBuf> {
    let home = paths::tools().join(name);
    if !home.exists() {
        std::fs::create_dir_all(paths::tools()).context("cannot make `target/tools`")?;
        let half = tempfile::tempdir_in(paths::tools()).context("cannot write `target/tools`")?;
        let mut sh = Command::new("sh");
        sh.args(["-euc", script]).current_dir(half.path());
        process::run(&context.ui, &context.interrupt, sh)?;
        std::fs::rename(half.path(), &home).with_context(|| format!("cannot keep {name}"))?;
    }
    Ok(home)
}

/// Fetches the source, with package lists of its own, and compiles the one file it has.
const STATIC_DUMB_INIT: &str = r#"
command -v musl-gcc > /dev/null || {
  echo 'there is no musl-gcc, run `apt-get install musl-tools`' >&2
  exit 1
}
mkdir -p lists/partial
sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources > source.sources
apt() {
  apt-get -qq -o Dir::Etc::SourceList="$PWD/source.sources" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$PWD/lists" -o APT::Sandbox::User=root "$@"
}
apt update
apt --download-only --tar-only source dumb-init
tar -xf dumb-init_*.orig.tar.*
rm -r lists
musl-gcc -std=gnu99 -static -s -O3 -o dumb-init dumb-init-*/dumb-init.c
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_path_and_nothing_else_is() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        // A folder of PATH's, not a program.
        assert_eq!(find("."), None);
        assert_eq!(find("no-such-init"), None);
    }
}
