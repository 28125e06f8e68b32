//! Builds a commit in a checkout of its own, by its own xtask.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;

use super::claim::{Claim, Published};
use super::released::Released;
use crate::build::PACKAGES;
use crate::flags::Reproduce;
use crate::lock::{Lock, Wanted};
use crate::oci::layout::Layout;
use crate::platform::Platform;
use crate::process::Interrupt;
use crate::{Context, base, files, paths, process, tools};

/// How long git may take to answer, and to check out everything.
const GIT_LIMIT: Duration = Duration::from_mins(1);

/// How long a copy of what was compiled for one platform may take.
const COPY_LIMIT: Duration = Duration::from_mins(2);

/// How often we look whether another rebuild has ended.
const POLL: Duration = Duration::from_millis(200);

/// A build of its own checkout is another one, which it must not be mistaken for: cargo tells
/// packages apart by their settings, but not by where the workspace lies.
const OWN_XTASK: [&str; 2] =
    ["profile.dev.package.xtask.debug=0", "profile.dev.package.xtask.incremental=false"];

/// A checkout of a commit, with its binaries built. It removes itself.
pub struct Rebuild<'a> {
    context: &'a Context,
    flags: &'a Reproduce,
    /// The repository that has the commit.
    repository: PathBuf,
    revision: String,
    place: PathBuf,
    /// One rebuild at a time: they share a place, and what they compile.
    _lock: File,
}

impl Rebuild<'_> {
    /// Checks out what `claims` were built from, which is one commit, and builds the binaries for
    /// all of their platforms.
    pub fn of<'a>(
        context: &'a Context,
        flags: &'a Reproduce,
        claims: &[&Claim],
    ) -> Result<Rebuild<'a>> {
        let repository = flags.source.clone().unwrap_or_else(paths::root);
        let folder = paths::reproduce();
        let rebuild = Rebuild {
            context,
            flags,
            repository: std::path::absolute(repository).context("cannot find the source")?,
            revision: claims[0].revision.clone(),
            place: folder.join("work"),
            _lock: lock(context, &folder)?,
        };
        rebuild.check(claims)?;
        rebuild.check_out()?;
        let wanted = |it: &&Platform| claims.iter().any(|claim| claim.platforms.contains(it));
        let platforms: Vec<_> = crate::platform::PLATFORMS.iter().filter(wanted).collect();
        rebuild.share(&platforms)?;
        rebuild.xtask(["build"], &platforms)?;
        Ok(rebuild)
    }

    /// The same image as `image`.
    pub fn image(&self, image: &Published, platforms: &[&'static Platform]) -> Result<Layout> {
        let name = &image.name;
        let ways = self.ways(self.lock_of(image, platforms)?.as_deref())?;
        self.xtask([vec!["image".to_string(), name.clone()], ways].concat(), platforms)?;
        Layout::open(&self.target().join("dist/oci").join(name))
    }

    /// The lock to build `image` by: it may have been built anew on a base that has moved since
    /// its commit. Nothing, if it is the commit's own.
    fn lock_of(
        &self,
        image: &Published,
        platforms: &[&'static Platform],
    ) -> Result<Option<PathBuf>> {
        let Reproduce { bases, transport, .. } = self.flags;
        let given = bases.lock_file.clone();
        let path = given.clone().unwrap_or_else(|| self.source().join("images/bases.lock"));
        let mut lock = Lock::read_from(&path)?;
        let Some((reference, digest)) = &image.base else { return Ok(given) };
        // What is not locked there is no base of this commit, and nobody to be asked for anything.
        if lock.get(reference).is_none_or(|it| it.index == *digest) {
            return Ok(given);
        }
        let (images, platforms) = (vec![image.name.as_str()], platforms.to_vec());
        let wanted = Wanted { reference, images, platforms };
        let entry =
            base::resolve_at(self.context, (&wanted, digest), &bases.mirrors.list, transport)
                .with_context(|| format!("cannot find the base `{reference}` that it names"))?;
        lock.insert(reference, entry);
        self.context.ui.say(format!("{}: its base {reference} is {digest}", image.name));
        let path = self.place.join("bases.lock");
        files::write(&path, lock.render()?.as_bytes(), files::PLAIN)?;
        Ok(Some(path))
    }

    /// The folder with the files of a release like `released`. Its images are not run: whether
    /// they are the same says more.
    pub fn release(&self, released: &Released) -> Result<PathBuf> {
        let mut arguments = vec!["dist".to_string()];
        arguments.extend(released.images.iter().cloned());
        arguments.push(format!("--repository={}", released.repository));
        arguments.extend(released.platforms.iter().map(|it| format!("--no-smoke={it}")));
        arguments.extend(self.ways(self.flags.bases.lock_file.as_deref())?);
        self.xtask(arguments, &released.platforms)?;
        Ok(self.target().join("dist/release"))
    }

    /// The options that say where bases come from.
    fn ways(&self, lock: Option<&Path>) -> Result<Vec<String>> {
        let mut arguments = Vec::new();
        let Reproduce { bases, transport, .. } = self.flags;
        arguments.extend(bases.mirrors.list.iter().map(|it| format!("--mirror={it}")));
        for (option, file) in [("--lock-file", lock), ("--ca", transport.ca.as_deref())] {
            if let Some(file) = file {
                let file = std::path::absolute(file).context("cannot find a file")?;
                arguments.push(format!("{option}={}", file.display()));
            }
        }
        if transport.plain_http {
            arguments.push("--plain-http".to_string());
        }
        Ok(arguments)
    }

    /// What has to be trusted by whoever trusts the verdict.
    pub fn grounds(&self) -> String {
        let again = "; `--fresh` fetches zig and compiles std again, too";
        format!(
            "commit {} in `{}`, the toolchain and the packages that it pins, and this machine{}",
            self.revision,
            self.repository.display(),
            if self.flags.fresh { "" } else { again }
        )
    }

    /// Finds out in a second what would make the rebuild another image.
    fn check(&self, claims: &[&Claim]) -> Result<()> {
        let (revision, repository) = (&self.revision, self.repository.display());
        let known = self.git(&["cat-file", "-e", &format!("{revision}^{{commit}}")]);
        ensure!(
            known.is_ok(),
            "cannot rebuild commit {revision}: it is not in `{repository}`; run `git fetch --tags` \
             there, or name another repository with `--source`"
        );
        let time = self.git(&["log", "--max-count=1", "--format=%ct", revision])?;
        let time = time.trim().parse().context("cannot read the commit's time")?;
        let time = Timestamp::from_second(time).context("cannot read the commit's time")?;
        if let Some(claim) = claims.iter().find(|it| it.created != time) {
            let (reference, created) = (claim.reference(), claim.created);
            bail!("cannot reproduce `{reference}`: it is dated {created}, its commit {time}");
        }
        Ok(())
    }

    fn check_out(&self) -> Result<()> {
        // What a rebuild that was killed has left.
        self.remove().context("cannot remove an old rebuild")?;
        let source = self.source().display().to_string();
        self.git(&["worktree", "add", "--force", "--detach", &source, &self.revision])
            .with_context(|| format!("cannot check out {}", self.revision))?;
        Ok(())
    }

    /// Lets the rebuild have what takes long and comes from no source of ours: the bases, which are
    /// checked at every use, and std. Of std it gets a copy, since cargo would take one checkout's
    /// pid1 for the other's.
    fn share(&self, platforms: &[&Platform]) -> Result<()> {
        let target = self.target();
        let step = || format!("cannot prepare `{}`", target.display());
        fs::create_dir_all(&target).with_context(step)?;
        if self.flags.fresh {
            return Ok(());
        }
        let bases = paths::target().join("bases");
        fs::create_dir_all(&bases).with_context(step)?;
        symlink(&bases, target.join("bases")).with_context(step)?;
        let host = std::iter::once(PathBuf::from("small"));
        let profiles = platforms.iter().map(|it| Path::new(it.target).join("small"));
        for profile in host.chain(profiles) {
            for part in [".fingerprint", "build", "deps"] {
                self.copy(&profile.join(part)).with_context(step)?;
            }
        }
        Ok(())
    }

    fn copy(&self, part: &Path) -> Result<()> {
        let (from, to) = (paths::cross().join(part), self.target().join("cross").join(part));
        // What was never compiled cannot be shared.
        let Ok(entries) = fs::read_dir(&from) else { return Ok(()) };
        let entries: Vec<_> = entries.collect::<io::Result<_>>()?;
        let shared: Vec<_> =
            entries.iter().filter(|it| !is_ours(&it.file_name().to_string_lossy())).collect();
        if shared.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&to)?;
        let mut command = Command::new("cp");
        // With their times: by these, cargo knows that they are up to date.
        command.args(["--archive", "--reflink=auto", "--target-directory"]).arg(&to);
        command.args(shared.iter().map(|it| it.path()));
        let Context { ui, interrupt } = self.context;
        process::output(&ui.silent(), interrupt, command, COPY_LIMIT).map(drop)
    }

    /// Runs a command of the commit's own xtask, for `platforms`.
    fn xtask<T: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = T>,
        platforms: &[&Platform],
    ) -> Result<()> {
        let mut command = tools::rust_command("cargo", tools::environment());
        command.current_dir(self.source()).env("CARGO_TARGET_DIR", self.target());
        for decided in ["SOURCE_DATE_EPOCH", "PID1_LOCK_FILE", "PID1_MIRRORS", "PID1_TOOLS"] {
            command.env_remove(decided);
        }
        if !self.flags.fresh {
            command.env("PID1_TOOLS", paths::tools());
            // What xtask itself is compiled from is the same wherever it is compiled.
            command.env("CARGO_BUILD_BUILD_DIR", paths::target());
            command.args(OWN_XTASK.iter().flat_map(|it| ["--config", it]));
        }
        command.arg("xtask").args(arguments.into_iter().map(|it| it.as_ref().to_string()));
        command.args(platforms.iter().map(|platform| format!("--platform={platform}")));
        process::run(&self.context.ui, &self.context.interrupt, command)
            .with_context(|| format!("cannot rebuild commit {}", self.revision))
    }

    fn git(&self, arguments: &[&str]) -> Result<String> {
        let Context { ui, interrupt } = self.context;
        process::output(&ui.silent(), interrupt, self.git_command(arguments), GIT_LIMIT)
    }

    fn git_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        // The user's own hooks and line endings are none of the commit.
        command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false"]);
        command.args(arguments).current_dir(&self.repository);
        command
    }

    fn source(&self) -> PathBuf {
        self.place.join("source")
    }

    fn target(&self) -> PathBuf {
        self.place.join("target")
    }

    fn remove(&self) -> io::Result<()> {
        if self.source().exists() {
            let source = self.source().display().to_string();
            let command = self.git_command(&["worktree", "remove", "--force", &source]);
            // This has to be done after an interrupt, too. Where git does not know the folder as
            // its own, it is removed below.
            let ui = self.context.ui.silent();
            let _ = process::output(&ui, &Interrupt::default(), command, GIT_LIMIT);
        }
        match fs::remove_dir_all(&self.place) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}

impl Drop for Rebuild<'_> {
    fn drop(&mut self) {
        if let Err(err) = self.remove() {
            self.context.ui.warn(format!("cannot remove `{}`: {err}", self.place.display()));
        }
    }
}

/// Whether cargo's file or folder of this name is of a package of the workspace.
fn is_ours(name: &str) -> bool {
    let name = name.strip_prefix("lib").unwrap_or(name).replace('_', "-");
    PACKAGES.iter().any(|package| name.starts_with(package))
}

/// Waits until no other rebuild is at work.
fn lock(context: &Context, folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let step = || format!("cannot lock `{}`", path.display());
    fs::create_dir_all(folder).with_context(step)?;
    let file = File::create(&path).with_context(step)?;
    let mut is_told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(err)) => return Err(err).with_context(step),
        }
        if !is_told {
            context.ui.say("waiting for another `cargo xtask reproduce` here");
            is_told = true;
        }
        context.interrupt.check()?;
        sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compiled_from_the_commit_is_not_shared() {
        for name in ["pid1-0123", "libpid1-0123.rlib", "docker_testing-01.d", "docker-testing-01"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["libstd-0123.rlib", "nix-0123", "signal-hook-0123"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
