//! The far side of the sandbox: xtask, executed once more, becomes PID 1 of an image.
//!
//! A process of its own, because xtask has threads, and threads forbid both `unshare` of a user
//! namespace and a `fork` that does more than execute.
//!
//! ```text
//! xtask ──► helper: unshares the namespaces, waits for its users to be mapped, forks
//!               └──► PID 1: mounts, pivots, gives up its rights, executes the image's program
//! ```
//!
//! Each has the kernel kill it when the one above it dies, so that none of it can outlive xtask.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{self, Gid, Uid};
use serde::{Deserialize, Serialize};

use super::binfmt;
use super::container::Process;
use super::sys::{self, Ended};

/// Everything the far side needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The folder with `root`, the unpacked image, and an empty `stage`.
    pub folder: PathBuf,
    pub process: Process,
    pub read_only: bool,
    /// Files of ours that appear in the image: from where, and where to.
    pub files: Vec<(PathBuf, String)>,
    /// What tells the kernel to run the image's programs through qemu, if that is needed.
    pub registration: Option<String>,
    /// Whether the machine runs them even if that fails.
    pub is_registered: bool,
    /// Whether we are the only user there is, by the number 0.
    pub only_us: bool,
}

/// What the far side says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The namespaces are made; now map the users, then say so.
    Unshared,
    /// This is PID 1, by the number it has outside.
    Started(i32),
    /// The kernel does not let us.
    Refused(String),
    /// It cannot be done.
    Failed(String),
    /// PID 1 has ended, and everything else with it; the number is ours until the line is closed.
    Ended { by_signal: bool, number: i32 },
}

/// The layer of an error that says at which point it happened: where nothing depends on the image.
#[derive(Debug)]
struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("cannot set the sandbox up")
    }
}

impl Report {
    /// What became of us.
    fn of(err: &anyhow::Error) -> Report {
        let message = format!("{err:#}");
        let code = err.root_cause().downcast_ref::<Errno>();
        let is_refusal = matches!(code, Some(Errno::EPERM | Errno::EACCES | Errno::ENOSPC));
        if err.is::<Refused>() && is_refusal {
            Report::Refused(message)
        } else {
            Report::Failed(message)
        }
    }

    fn send(&self, mut line: &UnixStream) {
        let mut text = serde_json::to_string(self).expect("a report is plain data");
        text.push('\n');
        // If nobody listens, xtask is gone, and we are about to be killed.
        let _ = line.write_all(text.as_bytes());
    }
}

/// The hidden command `inside`: its standard input is the line to xtask.
pub fn run() -> Result<()> {
    let line = std::io::stdin().as_fd().try_clone_to_owned();
    let line = UnixStream::from(line.context("cannot use the line to xtask")?);
    if let Err(err) = supervise(&line) {
        Report::of(&err).send(&line);
    }
    Ok(())
}

fn supervise(line: &UnixStream) -> Result<()> {
    let null = File::open("/dev/null").context("cannot open `/dev/null`")?;
    unistd::dup2_stdin(&null).context("cannot close the standard input")?;
    let mut lines = BufReader::new(line).lines();
    let mut next = || lines.next().and_then(Result::ok).context("xtask is gone");
    let orders = serde_json::from_str(&next()?).context("cannot read the orders")?;
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET,
    )
    .context("cannot make the namespaces")
    .context(Refused)?;
    // Before we wait for xtask, which would be for ever if it died in between.
    die_with_parent()?;
    Report::Unshared.send(line);
    next()?;
    let (alive, held) = std::io::pipe().context("cannot make a pipe")?;
    let pid = sys::fork(|| {
        // Only the copy in here: `held` itself stays with us.
        let _ = unistd::close(held.as_raw_fd());
        let Err(err) = become_pid_1(&orders, &alive);
        Report::of(&err).send(line);
    })?;
    // Or the readers of what PID 1 prints would wait for us, too.
    let null = File::options().write(true).open("/dev/null").context("cannot open `/dev/null`")?;
    unistd::dup2_stdout(&null).and_then(|()| unistd::dup2_stderr(&null))?;
    Report::Started(pid.as_raw()).send(line);
    let Ended { by_signal, number } = sys::wait_and_leave(pid)?;
    Report::Ended { by_signal, number }.send(line);
    // xtask closes the line when it needs the number no longer.
    let _ = next();
    sys::reap(pid);
    Ok(())
}

fn die_with_parent() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("cannot follow our parent's death")
}

/// Never returns but for an error.
fn become_pid_1(orders: &Orders, alive: &PipeReader) -> Result<Infallible> {
    die_with_parent()?;
    enter(orders)?;
    let Process { words, environment, directory, user } = &orders.process;
    make_directory(Path::new("/"), directory)?;
    if orders.read_only {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        change_mount("/", flags).context("cannot make the root read-only")?;
    }
    let program = find(&words[0], environment);
    assume(user.uid, user.gid, &user.groups, orders.only_us)?;
    unistd::chdir(directory.as_str()).with_context(|| format!("cannot enter `{directory}`"))?;
    // Again, as whoever changes users loses it; and if our parent died before, the pipe says so.
    die_with_parent()?;
    ensure_alive(alive)?;
    sys::reset_for_exec()?;
    execute(&program?, words, environment)
}

/// Makes the image our root, with `/proc`, `/dev` and the files that were asked for.
fn enter(orders: &Orders) -> Result<()> {
    let root = Path::new("stage/merged");
    mount_root(orders, root).context(Refused)?;
    if let Some(registration) = &orders.registration {
        let result = register(root, registration);
        result.or_else(|err| if orders.is_registered { Ok(()) } else { Err(err) })?;
    }
    mount_dev(root)?;
    for (from, to) in &orders.files {
        show(from, root, to)?;
    }
    pivot(root)?;
    // Who has a name of its own shows that the namespace is one.
    let name = orders.process.environment.iter().find_map(|it| it.strip_prefix("HOSTNAME="));
    unistd::sethostname(name.unwrap_or("sandbox")).context("cannot set the host's name")
}

/// Mounts the image at `root`, with a layer on top that takes what is written, and its `/proc`.
fn mount_root(orders: &Orders, root: &Path) -> Result<()> {
    change_mount("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE).context("cannot own the mounts")?;
    // Everything is relative to it: its path may have characters that mount options cannot.
    unistd::chdir(&orders.folder).context("cannot enter the sandbox's folder")?;
    mount_new("tmpfs", Path::new("stage"), MsFlags::empty(), "mode=755")?;
    for name in ["upper", "work", "merged"] {
        make_directory(Path::new("stage"), name)?;
    }
    let layers = "lowerdir=root,upperdir=stage/upper,workdir=stage/work";
    mount_new("overlay", root, MsFlags::empty(), layers)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    make_directory(root, "proc")?;
    mount_new("proc", &root.join("proc"), flags, "")
}

/// Tells the kernel about qemu, for this user namespace only. The mount stays: with it the
/// registration would go.
fn register(root: &Path, registration: &str) -> Result<()> {
    let directory = root.join(binfmt::DIRECTORY.trim_start_matches('/'));
    mount_new("binfmt_misc", &directory, MsFlags::empty(), "")
        .and_then(|()| Ok(fs::write(directory.join("register"), registration)?))
        .context(
            "cannot register qemu for a sandbox, which takes Linux 6.7; register it for the whole \
             machine (on Debian, install qemu-user-binfmt), or leave the platform out with \
             --no-smoke",
        )
}

fn mount_dev(root: &Path) -> Result<()> {
    make_directory(root, "dev")?;
    let dev = root.join("dev");
    mount_new("tmpfs", &dev, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "mode=755")?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        show(&Path::new("/dev").join(name), root, &format!("/dev/{name}"))?;
    }
    let links = [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")];
    for (name, number) in links {
        let link = symlink(format!("/proc/self/fd{number}"), dev.join(name));
        link.with_context(|| format!("cannot make `/dev/{name}`"))?;
    }
    Ok(())
}

/// Binds the file `from` to `to` in `root`.
fn show(from: &Path, root: &Path, to: &str) -> Result<()> {
    let place = place(root, to)?;
    let folder = place.parent().expect("the root is above it");
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    File::create(&place).with_context(|| format!("cannot make `{to}`"))?;
    mount(Some(from), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("cannot bind `{}` to `{to}`", from.display()))
}

fn make_directory(root: &Path, path: &str) -> Result<()> {
    let place = place(root, path)?;
    let result = DirBuilder::new().recursive(true).mode(0o755).create(place);
    result.with_context(|| format!("cannot make the directory `{path}`"))
}

/// `path` in `root`, which is somebody else's: a link in it could lead out of it.
fn place(root: &Path, path: &str) -> Result<PathBuf> {
    let mut place = root.to_path_buf();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) => place.push(name),
            _ => bail!("cannot use `{path}`: it is not plain"),
        }
        let is_link = fs::symlink_metadata(&place).is_ok_and(|it| it.is_symlink());
        // Once it is our own root, nothing leads out of it.
        ensure!(!is_link || root == Path::new("/"), "cannot use `{path}`: the image has a link");
    }
    Ok(place)
}

fn mount_new(kind: &str, place: &Path, flags: MsFlags, options: &str) -> Result<()> {
    let result = mount(Some(kind), place, Some(kind), flags, Some(options));
    result.with_context(|| format!("cannot mount {kind}"))
}

fn change_mount(place: &str, flags: MsFlags) -> Result<()> {
    Ok(mount(None::<&str>, place, None::<&str>, flags, None::<&str>)?)
}

/// Leaves everything behind but `root`.
fn pivot(root: &Path) -> Result<()> {
    unistd::chdir(root).context("cannot enter the root")?;
    // The old root ends up on top of the new one, from where it is taken away.
    unistd::pivot_root(".", ".").context("cannot change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot leave the old root")?;
    unistd::chdir("/").context("cannot enter the new root")
}

/// Becomes the user the image wants. Where the only user is ourselves, known as 0, he gets the
/// wanted number in one more user namespace.
fn assume(uid: u32, gid: u32, groups: &[u32], only_us: bool) -> Result<()> {
    if only_us {
        if (uid, gid) != (0, 0) {
            unshare(CloneFlags::CLONE_NEWUSER).context("cannot make a user namespace")?;
            fs::write("/proc/self/uid_map", format!("{uid} 0 1")).context("cannot map the user")?;
            fs::write("/proc/self/gid_map", format!("{gid} 0 1"))
                .context("cannot map the group")?;
        }
        return Ok(());
    }
    let groups: Vec<_> = groups.iter().copied().map(Gid::from_raw).collect();
    unistd::setgroups(&groups)
        .and_then(|()| unistd::setgid(Gid::from_raw(gid)))
        .and_then(|()| unistd::setuid(Uid::from_raw(uid)))
        .with_context(|| format!("cannot become {uid}:{gid}"))
}

/// Fails if our parent has died, which held the other end.
fn ensure_alive(mut alive: &PipeReader) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(alive, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot watch our parent")?;
    match alive.read(&mut [0]) {
        Err(err) if err.kind() == ErrorKind::WouldBlock => Ok(()),
        _ => bail!("our parent is gone"),
    }
}

/// Where the program is, by the image's PATH.
fn find(name: &str, environment: &[String]) -> Result<PathBuf> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let path = environment.iter().find_map(|it| it.strip_prefix("PATH=")).unwrap_or_default();
    let places = path.split(':').map(|folder| Path::new(folder).join(name));
    let found = { places }.find(|place| place.is_file());
    found.with_context(|| format!("cannot run `{name}`: it is nowhere in {path}"))
}

fn execute(program: &Path, words: &[String], environment: &[String]) -> Result<Infallible> {
    let c_string = |word: &str| std::ffi::CString::new(word).context("there is a NUL in it");
    let c_strings = |words: &[String]| words.iter().map(|it| c_string(it)).collect::<Result<_>>();
    let (words, environment): (Vec<_>, Vec<_>) = (c_strings(words)?, c_strings(environment)?);
    let name = program.display();
    let path = c_string(&name.to_string())?;
    let Err(err) = unistd::execve(&path, &words, &environment);
    match err {
        Errno::ENOEXEC => bail!("cannot run `{name}`: it is not for this machine"),
        err => Err(err).with_context(|| format!("cannot run `{name}`")),
    }
}
