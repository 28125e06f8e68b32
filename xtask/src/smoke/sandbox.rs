//! Runs an image as a container runtime would, without one: new namespaces, the image's own layers
//! as root, its entrypoint as PID 1.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::container::{self, Cue, Deed, Run};
use super::inside::{Orders, Report};
use super::rootfs::Rootfs;
use super::{binfmt, sys, users};
use crate::paths;
use crate::platform::Platform;
use crate::process::Interrupt;

/// Where the probe is in every image that has no `docker-testing` of its own: a directory of the
/// default PATH, and one that no distribution makes a link.
pub const PROBE: &str = "/usr/local/bin/docker-testing";

/// Where the probe stands in for a shell in images that have none.
const SHELL: &str = "/bin/sh";

/// How often we look for what nothing tells us about: an interruption, and PID 1's first child.
const POLL_MILLISECONDS: u8 = 2;

/// How long it may take from SIGKILL until all is gone.
const DYING: Duration = Duration::from_secs(10);

/// More than this nobody reads; the rest is let go of.
const KEPT: usize = 1 << 20;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// With this code.
    Exited(i32),
    /// By this signal, which is not 128 + signal: that is what an init makes of it.
    Killed(i32),
    /// It did not, and was killed after its deadline.
    TimedOut,
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Exited(code) => write!(out, "exit code {code}"),
            Status::Killed(signal) => write!(out, "signal {signal}"),
            Status::TimedOut => out.write_str("no end, so that it was killed"),
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub status: Status,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
    /// How long after what was done to it, if something was.
    pub after: Option<Duration>,
}

/// Runs the image once.
pub fn run(rootfs: &Rootfs, run: &Run, interrupt: &Interrupt) -> Result<Ran> {
    let line = run.line(&rootfs.name);
    let orders = orders(rootfs, run).with_context(|| format!("cannot {line}"))?;
    let mut sandbox = Sandbox::start(&orders, run.echo)?;
    let ran = sandbox.watch(&orders, run, interrupt);
    // However it went: nothing stays.
    sandbox.end();
    ran.with_context(|| format!("cannot {line} for {}", rootfs.platform))
}

fn orders(rootfs: &Rootfs, run: &Run) -> Result<Orders> {
    let platform = rootfs.platform;
    let process = container::process(&rootfs.name, &rootfs.config, &rootfs.accounts(), run)?;
    let probe = probe(platform)?;
    Ok(Orders {
        folder: rootfs.folder().to_path_buf(),
        process,
        read_only: run.read_only,
        files: places(rootfs).map(|place| (probe.clone(), place.to_string())).collect(),
        registration: rootfs.registration.clone(),
        is_registered: binfmt::is_registered(platform),
        only_us: users::only_us(),
    })
}

/// The probe for `platform`, by its full path: who looks for it may be elsewhere.
pub fn probe(platform: &Platform) -> Result<PathBuf> {
    let probe = paths::binary(platform, "docker-testing");
    ensure!(
        probe.is_file(),
        "there is no `{}`, run `cargo xtask build --platform {platform}`",
        probe.display()
    );
    std::path::absolute(probe).context("cannot find the probe")
}

/// Where the image is to have the probe: where it has nothing itself.
pub fn places(rootfs: &Rootfs) -> impl Iterator<Item = &'static str> {
    [PROBE, SHELL].into_iter().filter(|place| !rootfs.has(place))
}

/// The helper, its line, and what PID 1 prints.
struct Sandbox {
    helper: Child,
    line: UnixStream,
    unread: Vec<u8>,
    stdout: Stream,
    stderr: Stream,
    /// PID 1, by its number here, from its start until we let go of the number.
    pid: Option<i32>,
    ended: Option<Status>,
}

/// A pipe that is read to its end.
struct Stream {
    pipe: Option<File>,
    bytes: Vec<u8>,
    /// Where to show it as it comes.
    echo: Option<Box<dyn Write>>,
}

impl Sandbox {
    fn start(orders: &Orders, echo: bool) -> Result<Sandbox> {
        let mut text = serde_json::to_string(orders).context("cannot write the orders")?;
        text.push('\n');
        let (mut line, theirs) = UnixStream::pair().context("cannot make a line to the helper")?;
        // Not by its path: it may have been built anew since we were started.
        let mut helper = Command::new("/proc/self/exe");
        helper.arg("inside").stdin(OwnedFd::from(theirs));
        helper.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut helper = helper.spawn().context("cannot run the sandbox's helper")?;
        let stdout = OwnedFd::from(helper.stdout.take().expect("it is piped"));
        let stderr = OwnedFd::from(helper.stderr.take().expect("it is piped"));
        // If this fails, the helper has died; the line's end will tell.
        let _ = line.write_all(text.as_bytes());
        Ok(Sandbox {
            helper,
            line,
            unread: Vec::new(),
            stdout: Stream::new(stdout, echo.then(|| Box::new(std::io::stdout()) as _)),
            stderr: Stream::new(stderr, echo.then(|| Box::new(std::io::stderr()) as _)),
            pid: None,
            ended: None,
        })
    }

    /// Follows what happens to its end.
    fn watch(&mut self, orders: &Orders, run: &Run, interrupt: &Interrupt) -> Result<Ran> {
        let start = Instant::now();
        let deadline = run.deadline.unwrap_or(Run::DEADLINE);
        let mut then = run.then.clone();
        let mut done = None;
        let mut is_late = false;
        while self.ended.is_none() || self.stdout.is_open() || self.stderr.is_open() {
            interrupt.check()?;
            if start.elapsed() > deadline && !is_late {
                is_late = true;
                self.kill()?;
            }
            ensure!(start.elapsed() < deadline + DYING, "it does not die");
            if let Some((_, deed)) = then.take_if(|(cue, _)| self.has_come(cue)) {
                let Deed::Signal(number) = deed else { bail!("only an engine can {deed:?}") };
                sys::kill(self.pid.expect("a cue comes from PID 1"), number)?;
                done = Some(Instant::now());
            }
            self.wait_for_news()?;
            self.read_reports(orders)?;
        }
        let status = if is_late { Some(Status::TimedOut) } else { self.ended };
        Ok(Ran {
            status: status.expect("the loop waits for it"),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            took: start.elapsed(),
            after: done.map(|done| done.elapsed()),
        })
    }

    fn has_come(&self, cue: &Cue) -> bool {
        let Some(pid) = self.pid else { return false };
        match cue {
            Cue::Printed(text) => self.stdout.text().contains(text),
            // Before that it goes by the name of its parent, the helper.
            Cue::Runs => name_of(pid) != name_of(self.helper.id()),
            Cue::HasChild => fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
                .is_ok_and(|children| !children.is_empty()),
        }
    }

    /// Kills PID 1, and the kernel with it everything in its namespace.
    fn kill(&mut self) -> Result<()> {
        match self.pid {
            Some(pid) => sys::kill(pid, libc::SIGKILL),
            None => self.helper.kill().context("cannot kill the sandbox's helper"),
        }
    }

    /// Waits until one of the pipes has something, and reads it.
    fn wait_for_news(&mut self) -> Result<()> {
        let streams = [&mut self.stdout, &mut self.stderr];
        let mut fds = vec![PollFd::new(self.line.as_fd(), PollFlags::POLLIN)];
        let pipes = streams.iter().filter_map(|stream| stream.pipe.as_ref());
        fds.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::from(POLL_MILLISECONDS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(err) => return Err(err).context("cannot wait for the sandbox"),
        }
        let ready: Vec<_> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        drop(fds);
        let mut ready = ready.into_iter();
        let line_is_ready = ready.next() == Some(true);
        for stream in streams {
            if stream.is_open() && ready.next() == Some(true) {
                stream.read()?;
            }
        }
        if line_is_ready { self.read_line() } else { Ok(()) }
    }

    fn read_line(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        let length = self.line.read(&mut bytes).context("cannot hear the sandbox's helper")?;
        if length == 0 {
            let complaint = self.stderr.text();
            bail!("the sandbox's helper died: {}", complaint.trim());
        }
        self.unread.extend(&bytes[..length]);
        Ok(())
    }

    fn read_reports(&mut self, orders: &Orders) -> Result<()> {
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let text: Vec<u8> = self.unread.drain(..=end).collect();
            match serde_json::from_slice(&text).context("cannot understand the helper")? {
                Report::Unshared => {
                    users::map(self.helper.id(), orders.only_us)
                        .map_err(|err| anyhow!("{err:#}; {}", remedy()))?;
                    self.line.write_all(b"go\n").context("cannot tell the helper")?;
                }
                Report::Started(pid) => self.pid = Some(pid),
                Report::Refused(message) => bail!("{message}; {}", remedy()),
                Report::Failed(message) => bail!(message),
                Report::Ended { by_signal: true, number } => {
                    self.ended = Some(Status::Killed(number));
                }
                Report::Ended { by_signal: false, number } => {
                    self.ended = Some(Status::Exited(number));
                }
            }
        }
        Ok(())
    }

    /// Lets go of what is over, and kills what is not.
    fn end(&mut self) {
        if self.ended.is_none() {
            // PID 1 follows its parent's death.
            let _ = self.kill();
            let _ = self.helper.kill();
        }
        let _ = self.line.shutdown(Shutdown::Both);
        let _ = self.helper.wait();
        self.pid = None;
    }
}

/// What the kernel calls a process.
fn name_of(pid: impl fmt::Display) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

impl Stream {
    fn new(pipe: OwnedFd, echo: Option<Box<dyn Write>>) -> Stream {
        Stream { pipe: Some(File::from(pipe)), bytes: Vec::new(), echo }
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Reads once, when there is something or the end.
    fn read(&mut self) -> Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let mut bytes = [0; 16384];
        let length = pipe.read(&mut bytes).context("cannot read what was printed")?;
        if length == 0 {
            self.pipe = None;
        }
        if self.bytes.len() < KEPT {
            self.bytes.extend(&bytes[..length]);
        }
        if let Some(echo) = &mut self.echo {
            echo.write_all(&bytes[..length]).context("cannot print")?;
            echo.flush().context("cannot print")?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// What to do where the kernel refuses.
fn remedy() -> &'static str {
    let is =
        |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        "run `sudo sysctl user.max_user_namespaces=10000`"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "run `sudo sysctl kernel.unprivileged_userns_clone=1`"
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "run `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
    } else {
        "if this is a container, start it with `--security-opt seccomp=unconfined --security-opt \
         apparmor=unconfined --security-opt systempaths=unconfined`"
    }
}
