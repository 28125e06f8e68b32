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

/// What Debian calls them, and where it puts them.
const DEBIAN: [(&str, &str); 4] = [
    ("tini", "/usr/bin/tini"),
    ("tini-static", "/usr/bin/tini-static"),
    ("dumb-init", "/usr/bin/dumb-init"),
    ("catatonit", "/usr/bin/catatonit"),
];

/// pid1, Debian's inits, a static dumb-init where musl's compiler is at hand, and no init at all.
pub fn all(context: &Context) -> Result<Vec<Peer>> {
    let mut peers = vec![own()?];
    for (name, _) in DEBIAN {
        peers.push(debian(name)?);
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

/// One of Debian's.
pub fn debian(name: &str) -> Result<Peer> {
    let (name, path) =
        DEBIAN.into_iter().find(|it| it.0 == name).expect("only names of the table are asked for");
    ensure!(
        Path::new(path).exists(),
        "cannot measure {name}: there is no `{path}`, run `apt-get install tini dumb-init catatonit`"
    );
    Ok(Peer { name, path: Some(path.into()) })
}

/// dumb-init as Alpine builds it, from Debian's source package and musl's compiler.
fn static_dumb_init(context: &Context) -> Result<PathBuf> {
    let home = paths::tools().join("dumb-init-static-musl");
    let binary = home.join("dumb-init");
    if !binary.exists() {
        std::fs::create_dir_all(paths::tools()).context("cannot make `target/tools`")?;
        let half = tempfile::tempdir_in(paths::tools()).context("cannot write `target/tools`")?;
        let mut script = Command::new("sh");
        script.args(["-euc", STATIC_DUMB_INIT]).current_dir(half.path());
        process::run(&context.ui, &context.interrupt, script)?;
        std::fs::rename(half.path(), &home).context("cannot keep the static dumb-init")?;
    }
    Ok(binary)
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
