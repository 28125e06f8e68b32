//! A docker daemon of the tests' own, whose `--init` is our binary. The tests share it; the last
//! one ends it.

use std::ffi::OsString;
use std::fs;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use crate::built;
use crate::push::fixture::{Run, Running, comes_about, run};

/// How long the daemon may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is on the containers' first line when they can be stopped; they write it to standard error.
const READY: &str = "ready\n";

pub struct Daemon {
    /// Short: a socket's path may have 108 bytes.
    folder: TempDir,
    /// None where it is somebody else's.
    child: Option<Child>,
}

impl Daemon {
    /// The one that runs, or else a new one; none, and that is said, where there can be none.
    #[track_caller]
    pub fn get(test: &str) -> Option<Arc<Daemon>> {
        static SHARED: Mutex<Weak<Daemon>> = Mutex::new(Weak::new());
        if !geteuid().is_root() {
            // Not `eprintln`: the test harness keeps that to itself.
            let _ = writeln!(stderr(), "NOT RUN: {test}: a docker daemon of its own needs root");
            return None;
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(daemon) = shared.upgrade() {
            return Some(daemon);
        }
        let daemon = Arc::new(Daemon::start());
        *shared = Arc::downgrade(&daemon);
        Some(daemon)
    }

    /// That of the machine, for what has to reach the machine's own servers.
    pub fn of_the_machine() -> Daemon {
        Daemon { folder: tempfile::tempdir().unwrap(), child: None }
    }

    fn start() -> Daemon {
        let folder = tempfile::Builder::new().prefix("d").tempdir_in("/tmp").unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::copy(built::pid1(), path("docker-init")).unwrap();
        fs::write(path("config"), r#"{"features": {"containerd-snapshotter": true}}"#).unwrap();
        // In a network of its own: told to have no bridge, it removes `docker0`, which may be that
        // of the docker that people use here.
        let mut command = Command::new("unshare");
        command.env("PATH", path_of_administrators()).args(["--net", "dockerd"]);
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.arg("--host").arg(format!("unix://{}", path("socket").display()));
        for (flag, name) in [
            ("--config-file", "config"),
            ("--pidfile", "pid"),
            ("--data-root", "data"),
            ("--exec-root", "run"),
            ("--init-path", "docker-init"),
        ] {
            command.arg(flag).arg(path(name));
        }
        let log = fs::File::create(path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("`dockerd` is needed here");
        let daemon = Daemon { folder, child: Some(child) };
        let up = comes_about(PATIENCE, || daemon.run(&["version"]).code == Some(0));
        let log = fs::read_to_string(daemon.path("log")).unwrap();
        assert!(up, "dockerd does not answer: {log}");
        daemon
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        if self.child.is_some() {
            command.env("DOCKER_HOST", format!("unix://{}", self.path("socket").display()));
            command.env("DOCKER_CONFIG", self.folder.path());
        }
        command.args(arguments);
        command
    }

    /// `docker` with `arguments`, to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments))
    }

    /// `docker` with `arguments`, which must succeed; what it printed.
    #[track_caller]
    pub fn must(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(0), "docker {arguments:?}: {}", run.stderr);
        run.stdout
    }

    /// `docker` with `arguments`, which runs something that says on standard error that it is
    /// ready.
    #[track_caller]
    pub fn start_until_ready(&self, arguments: &[&str]) -> Running {
        let running = Running::start(&mut self.command(arguments), b"");
        let ready = comes_about(PATIENCE, || running.stderr().contains(READY));
        assert!(ready, "docker {arguments:?}: {}", running.stderr());
        running
    }

    /// Our image of test programs; its name.
    #[track_caller]
    pub fn load(&self) -> String {
        let archive = built::archive("docker-testing");
        let loaded = self.must(&["load", "--input", archive.path().to_str().unwrap()]);
        loaded.trim().strip_prefix("Loaded image: ").expect("it says what it loaded").to_owned()
    }

    /// Builds the image `name` from `context`.
    #[track_caller]
    pub fn build(&self, name: &str, context: &Path) {
        let context = context.to_str().unwrap();
        self.must(&["build", "--quiet", "--network=none", "--tag", name, context]);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        if comes_about(PATIENCE, || !matches!(child.try_wait(), Ok(None))) {
            return;
        }
        let _ = child.kill();
        let _ = child.wait();
        // Its own daemon, which it has not ended then.
        let containerd = fs::read_to_string(self.path("run/containerd/containerd.pid"));
        if let Some(pid) = containerd.ok().and_then(|pid| pid.trim().parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Debian keeps the daemons where an ordinary PATH does not lead.
fn path_of_administrators() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}
